"""The error of every model and weights file that cannot be had."""

from __future__ import annotations


class ModelError(ValueError):
    """A model or its weights cannot be had; the message says which, and what would do."""
