"""Threads that share compiled work, as many as torch would use.

Torch's own threads cannot run other people's loops, and after each product they spin for milliseconds in the way of
whoever else wants the core. So each thread here makes its products itself, on one core, and finds them in its cache.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Task = TypeVar("Task")

# By threads and process, because a fork has none of its parent's threads; a lock of the parent may be held for ever.
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_locks: dict[int, threading.Lock] = {}
# Seconds within which even a machine that is far too busy starts its threads.
_PATIENCE = 300


def share(tasks: Sequence[Task], worker: Callable[[], Callable[[Task], None]], *, caller_works: bool = False) -> None:
    """Do every task: each of `torch.get_num_threads()` threads takes the next one until none is left.

    `worker()` is called once a thread, for buffers of its own, and returns what does a task. With one thread, or one
    task, the caller does it all. `caller_works` makes it one of the threads, for tasks without products of matrices:
    it would use all cores for these. Raises what a task raised.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    left = deque(tasks)
    if threads <= 1:
        _work(left, worker)
        return
    pool = _pool(torch.get_num_threads())
    others = [pool.submit(_work, left, worker) for _ in range(threads - caller_works)]
    if caller_works:
        _work(left, worker)
    for other in others:
        # On a busy machine all may be done before a thread wakes up, which then need not.
        if left or not other.cancel():
            other.result()


def _work(left: deque[Task], worker: Callable[[], Callable[[Task], None]]) -> None:
    # A thread has grad modes of its own; the tensors to write to may be the caller's inference tensors.
    with torch.inference_mode():
        do = worker()
        while left:
            try:
                task = left.popleft()
            except IndexError:  # another thread was quicker
                return
            do(task)


def _use_one_core() -> None:
    torch.get_num_threads()  # a thread takes over the default when it first asks, which would undo the next line
    torch.set_num_threads(1)


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose products use one core each; started once, and kept beside those of callers with another number."""
    process = os.getpid()
    with _locks.setdefault(process, threading.Lock()):
        if (threads, process) not in _pools:
            _pools[threads, process] = _start(threads)
        return _pools[threads, process]


def _start(threads: int) -> ThreadPoolExecutor:
    """Returns when all threads have begun. Raises BrokenBarrierError when one does not."""
    pool = ThreadPoolExecutor(threads, "matching", initializer=_use_one_core)
    started = threading.Barrier(threads + 1, timeout=_PATIENCE)
    try:
        for _ in range(threads):
            pool.submit(started.wait)
        started.wait()
    except BaseException:
        started.abort()
        pool.shutdown(wait=False)
        raise
    finally:
        # What a thread sets for itself is also the default of threads to come: put that back.
        torch.set_num_threads(threads)
    return pool
