"""What goes wrong between a person who asks and a store that should answer."""

from __future__ import annotations


class StoreError(RuntimeError):
    """A store that cannot answer; the message says why and what would help."""


class QueryError(ValueError):
    """A question that no store could answer: wrong values, or ones that do not fit the table asked."""
