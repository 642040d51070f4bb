"""How fast rows are done, and how long the rest will take: by the last half minute, from the first answer on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW = 30.0
"""Seconds over which a rate is taken; longer where answers are rarer than that."""
TOGETHER = 1.0
"""Seconds within which answers count as one: actors that started together answer together."""


class Pace:
    """Rows a second of one stage of one run. Neither start-up nor what was there before counts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moments: deque[list[float]] = deque()  # [of a group's first answer, of its last, rows done by then]
        self.done = 0

    def advance(self, rows: int) -> None:
        """Note an answer: so many more rows are done."""
        self.done += rows
        now = self._clock()
        if self._moments and now - self._moments[-1][0] < TOGETHER:
            self._moments[-1][1:] = now, self.done
        else:
            self._moments.append([now, now, self.done])
        while len(self._moments) > 2 and now - self._moments[1][1] >= WINDOW:
            self._moments.popleft()

    @property
    def rate(self) -> float | None:
        """Rows a second; None before a second answer, since the first one took what starting takes."""
        if len(self._moments) < 2:
            return None
        (_, start, before), (_, end, after) = self._moments[0], self._moments[-1]
        return (after - before) / (end - start)

    def seconds_left(self, rows: int) -> float | None:
        """How long so many more rows will take; None while that cannot be told."""
        return rows / self.rate if self.rate else None
