"""What several methods work out of one batch of features, worked out once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TypeVar

Value = TypeVar("Value")


class Shared:
    """Remembers values of one batch of images, and what each cost.

    `borrowed` is the cost, in seconds, of the values that were there already when they were asked for. Whoever
    times a method sets it to zero before and adds it after: the method's time is then what it would take alone,
    whichever method came first.
    """

    def __init__(self) -> None:
        self.borrowed = 0.0
        self._known: dict[Hashable, tuple[object, float]] = {}

    def once(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """compute()'s value, from memory where this key was asked for before.

        The key must say all that the value depends on beyond the features. It is held on to, so an object in it
        cannot be mistaken for a later one at the same place in memory.
        """
        if key in self._known:
            value, seconds = self._known[key]
            self.borrowed += seconds
            return value  # type: ignore[return-value]
        start, borrowed = time.perf_counter(), self.borrowed
        value = compute()
        # What compute() borrowed itself is part of the price for whoever borrows its value.
        self._known[key] = value, time.perf_counter() - start + self.borrowed - borrowed
        return value
