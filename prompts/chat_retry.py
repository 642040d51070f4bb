"""When to ask a server again: what it wishes, else longer from time to time; and for all questions together."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

FIRST_WAIT = 0.5
"""Seconds before the second attempt; each further wait is up to twice the one before."""
LONGEST_WAIT = 60.0
LONGEST_WISH = 600.0
"""Seconds: a server that wishes a longer pause has a limit a day or so, for which nobody waits at a terminal."""


def wished_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response wishes: `retry-after-ms`, or `retry-after` in seconds or as a date; None without one."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    wish = headers.get("retry-after")
    if wish is None:
        return None
    try:
        return max(0.0, float(wish))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(wish)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row, with jitter so that questions do not come back together."""
    return random.uniform(0.5, 1.0) * min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 20))


class Gate:
    """What all questions to an endpoint pass: shut for all of them while the server wishes a pause.

    Lives in one asyncio loop. Once it is closed nobody passes any more, and who waits goes away at once.
    """

    def __init__(self) -> None:
        self.shut_in_a_row = 0
        """times it was shut since a question was last answered"""
        self._opens = 0.0
        self._shut = 0.0
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nobody passes any more."""
        return self._closed.is_set()

    def close(self) -> None:
        """Let nobody pass any more."""
        self._closed.set()

    async def wait(self) -> float | None:
        """Wait until it is open; returns the time by the monotonic clock, None where it is closed."""
        pause = 0.0
        while not self.closed and (now := time.monotonic()) < self._opens + pause:
            # Those who waited do not all rush in at the same moment.
            pause = random.uniform(0.0, min(1.0, (self._opens - self._shut) / 4))
            await self.pause(self._opens + pause - now)
        return None if self.closed else now

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until it is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def shut(self, wish: float | None, sent: float) -> float:
        """Shut it because of the answer to a question that was sent at that time; returns for how many seconds.

        Questions that were under way together shut it once: their answers do not tell that waiting did not help.
        """
        now = time.monotonic()
        if sent >= self._shut:
            self.shut_in_a_row += 1
            self._shut = now
        if wish is None:
            wait = backoff(self.shut_in_a_row + 1)  # limits are often by the minute
        elif self.shut_in_a_row == 1:
            wait = wish
        else:  # it was not enough
            wait = max(wish, backoff(self.shut_in_a_row - 1))
        self._opens = max(self._opens, now + wait)
        return wait

    def answered(self) -> None:
        """A question was answered: the server is well."""
        self.shut_in_a_row = 0
