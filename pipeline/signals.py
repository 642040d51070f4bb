"""Hold Ctrl-C and SIGTERM back while something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """SIGINT and SIGTERM that come inside arrive at the end, at the handlers that were there before, which stay.

    Whatever is called inside may set handlers of its own: they are taken away again. Ray's end the process by
    SystemExit, which counts as the SIGTERM that it stands for. Only the main thread hears signals, so in others this
    does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda number, frame: came.append(number)) for kind in kinds}
    try:
        yield
    except SystemExit:
        came.append(signal.SIGTERM)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)
