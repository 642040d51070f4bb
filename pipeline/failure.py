"""What a person is told of a job that failed, in one line."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

from stages.stage import TooManyRejects

_FULL = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow so large",
}


class NoSpace(RuntimeError):
    """A stage could not write its rows; the message says where, what is kept and how to go on."""


def no_space(error: BaseException, stage: str, store: str) -> NoSpace | None:
    """What to say where a full disk, here or on a worker, is behind an error; None where it is not."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _FULL:
            reason, place = _FULL[cause.errno], cause.filename or store
        elif "No space left on device" in str(cause):  # said by lancedb and others without a number
            reason, place = _FULL[errno.ENOSPC], store
        else:
            continue
        return NoSpace(
            f"{stage}: {reason}, writing {place}. What is computed is kept, and no file is left half written: make "
            "room and run again, and it goes on where it was. fieldmark gc JOB lists tables that no job needs any more"
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what Ray wrapped it around, and what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        cause = getattr(error, "cause", None)
        error = cause if isinstance(cause, BaseException) else error.__cause__ or error.__context__


def explain_failure(error: BaseException) -> str:
    """One line for a person: what failed in a worker, without Ray's wrapping."""
    if isinstance(error, (TooManyRejects, NoSpace)):
        return str(error)
    cause = getattr(error, "cause", None)
    if cause is not None and "ray" in sys.modules:
        return f"{type(cause).__name__}: {cause}"
    return f"{type(error).__name__}: {error}"
