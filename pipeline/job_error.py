"""The error that ends a command with exit status 2; a module of its own, so that `--help` needs no settings."""

from __future__ import annotations


class JobError(ValueError):
    """A job file or call that is wrong; the message names file, key, value and what is allowed."""
