"""Compiled functions that stay on disk for the next process, as long as nothing that they are made of changes.

numba's cache notes changes of a function's own file. A kernel is also made of the instructions that `lanes` and
`exponential` give to LLVM, so theirs count too; and where no place can be written to (an installation that is read
only, a user without a home), a kernel is compiled anew by each process, which takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numba
from numba.core.caching import FunctionCache
from numba.core.types import Type

from . import exponential, lanes

_INSTRUCTIONS = (lanes.__file__, exponential.__file__)


def kernel(*parameters: Type) -> Callable[[Callable], Callable]:
    """Compile a function of these parameters, which returns nothing, at once; it does not hold the interpreter's lock.

    It reads and writes arrays without looking at their bounds.
    """
    signature = numba.void(*parameters)

    def compiled(function: Callable) -> Callable:
        try:
            return _compile(function, signature, _KernelCache(function))
        except (RuntimeError, OSError):  # numba finds no place to write, or cannot write after all
            return _compile(function, signature, None)

    return compiled


def _compile(function: Callable, signature: Type, cache: FunctionCache | None) -> Callable:
    made = numba.njit(nogil=True)(function)
    if cache is not None:
        made._cache = cache
    made.compile(signature)
    made.disable_compile()
    return made


class _KernelCache(FunctionCache):
    """numba's cache of a function, whose entries belong to these very instructions."""

    def _index_key(self, signature, codegen):
        digests = tuple(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in _INSTRUCTIONS)
        return (*super()._index_key(signature, codegen), digests)
