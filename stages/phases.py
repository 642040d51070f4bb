"""Where the time of a stage goes: seconds by phase, added up in a worker and handed to the run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """Seconds by name of phase. On a GPU work is queued: a phase's time is the host's, and waiting shows in the phase
    that reads a result back."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the wall time of a `with` block to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start
