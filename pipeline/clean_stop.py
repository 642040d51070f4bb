"""Ctrl-C and SIGTERM stop a command cleanly: what is computed is kept, temporaries and claims are put away.

SIGTERM comes from a preempted machine, from Ray for a stopped job, from Kubernetes: handled as Ctrl-C is.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class CleanStop:
    """A context in which the first SIGINT or SIGTERM raises KeyboardInterrupt.

    What comes during the stop that follows does not interrupt it: the second signal is answered with a line, the third
    ends the process at once. Once a signal came, this stays so to the end of the process.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._times = 0
        self._former: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status of an interrupted command: 143 after SIGTERM, else 130."""
        return 128 + (self.received or signal.SIGINT)

    def __enter__(self) -> CleanStop:
        self._former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        _terminated.clear()
        for number in self._former:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.received is None:
            for number, handler in self._former.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        if self._times == 1:
            self.received = number
            if number == signal.SIGTERM:
                _terminated.set()
            raise KeyboardInterrupt
        if self._times == 2:
            os.write(2, b"\nstopping, so that nothing is left half done; once more ends at once\n")
            return
        os._exit(self.status)


_terminated = threading.Event()


def was_terminated() -> bool:
    """Whether a KeyboardInterrupt stands for SIGTERM: Ray raises a new one where it passes ours on."""
    return _terminated.is_set()
