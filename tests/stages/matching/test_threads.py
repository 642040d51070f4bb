from __future__ import annotations

import multiprocessing
import threading

import pytest
import torch

from stages.matching import threads as pools
from stages.matching.threads import share


@pytest.mark.parametrize("caller_works", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_task_is_done_once_whoever_takes_it(threads, caller_works):
    torch.set_num_threads(threads)
    for _ in range(20):
        done = []
        share(range(30), lambda done=done: done.append, caller_works=caller_works)
        assert sorted(done) == list(range(30))
    share([], lambda: pytest.fail, caller_works=caller_works)


def test_a_caller_that_works_is_one_of_the_threads():
    torch.set_num_threads(2)
    meet = threading.Barrier(2, timeout=60)
    owners = []

    def do(_):
        meet.wait()
        owners.append(threading.get_ident())

    share(range(2), lambda: do, caller_works=True)
    assert threading.get_ident() in owners
    assert len(set(owners)) == 2


def test_threads_have_buffers_of_their_own_and_products_on_one_core():
    torch.set_num_threads(3)
    meet = threading.Barrier(3, timeout=60)
    owners, cores = [], []

    def worker():
        owners.append(threading.get_ident())

        def do(_):
            meet.wait()  # so that no thread can take two
            cores.append(torch.get_num_threads())

        return do

    share(range(3), worker)
    assert len(set(owners)) == 3
    assert threading.get_ident() not in owners
    assert cores == [1, 1, 1]
    assert torch.get_num_threads() == 3
    later = []
    other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert later == [3]


def who_works(threads: int) -> set[threading.Thread]:
    torch.set_num_threads(threads)
    meet = threading.Barrier(threads, timeout=60)
    owners = set()

    def do(_):
        meet.wait()
        owners.add(threading.current_thread())

    share(range(threads), lambda: do)
    return owners


def test_callers_with_different_numbers_of_threads_do_not_take_them_from_each_other():
    two, three = who_works(2), who_works(3)
    assert (len(two), len(three)) == (2, 3)
    assert who_works(2) == two
    assert who_works(3) == three


def test_callers_who_begin_together_start_the_threads_once(monkeypatch):
    starts = []
    start = pools._start
    monkeypatch.setattr(pools, "_pools", {})
    monkeypatch.setattr(pools, "_start", lambda threads: starts.append(threads) or start(threads))
    together = threading.Barrier(8, timeout=60)

    def call():
        torch.set_num_threads(2)
        together.wait()
        share(range(4), lambda: lambda task: None)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert starts == [2]


def test_a_thread_that_cannot_be_started_is_an_error_and_not_a_wait_for_ever(monkeypatch):
    monkeypatch.setattr(pools, "_pools", {})
    monkeypatch.setattr(pools, "_PATIENCE", 0.2)
    torch.set_num_threads(2)
    with monkeypatch.context() as broken:
        broken.setattr(pools.ThreadPoolExecutor, "submit", lambda *_: None)
        with pytest.raises(threading.BrokenBarrierError):
            share(range(4), lambda: lambda task: None)
    done = []
    share(range(4), lambda: done.append)
    assert sorted(done) == list(range(4))


@pytest.mark.parametrize("caller_works", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_task_raises_reaches_the_caller(threads, caller_works):
    torch.set_num_threads(threads)

    def do(task):
        if task == 5:
            raise ValueError("the sixth")

    with pytest.raises(ValueError, match="the sixth"):
        share(range(10), lambda: do, caller_works=caller_works)


def _count(answer) -> None:
    torch.set_num_threads(2)
    done = []
    share(range(10), lambda: done.append)
    answer.send(len(done))


def test_a_fork_starts_threads_of_its_own():
    torch.set_num_threads(2)
    share(range(4), lambda: lambda task: None)
    fork = multiprocessing.get_context("fork")
    answer, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_count, args=(theirs,))
    child.start()
    assert answer.poll(60)
    assert answer.recv() == 10
    child.join(60)
