"""The error of a cluster that cannot be used."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The cluster cannot be reached, or does not see what all its nodes must see; the message says what to do."""
