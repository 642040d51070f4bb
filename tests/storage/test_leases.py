"""Claims: never two holders, whatever the order of their steps; and what becomes of those who hold no more."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import files, leases
from storage.leases import DEAD_AFTER, LOST_AFTER, Claims, Held, LeaseLost, claimed, living_runs

X, Y = "encode_images/x", "score/y"


@pytest.fixture
def store(tmp_path) -> Iterator[str]:
    """A store, where a second try comes at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "PAUSE", 0.0)
        yield str(tmp_path / "store")


def claims(store: str, run: str) -> Claims:
    return Claims(store, run, {"job": f"job of {run}"})


def age(store: str, run: str, seconds: float) -> None:
    """Make a claim's stamp so old, as if it was not renewed since."""
    path = Path(store) / "leases" / f"{run}.json"
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def of_another_host(store: str, run: str, **names: list[str]) -> None:
    """A claim that a process of another machine has written just now."""
    claim = {"run": run, "job": "birds", "host": "elsewhere", "machine": "elsewhere 1 pid:[2]", "process": 1}
    claim |= {"started": "5", "since": "2025-03-04T14:05:00+00:00", "exclusive": [], "shared": []}
    files.write_atomic(f"{store}/leases/{run}.json", json.dumps(claim | names).encode(), run)


def test_what_one_run_holds_another_does_not_get_and_hears_who_holds_it(store):
    with claims(store, "a") as first, claims(store, "b") as second:
        first.take([X, Y])
        with pytest.raises(Held) as held:
            second.take([Y])
        (holder,) = held.value.holders
        assert (holder["run"], holder["job"], holder["process"], holder["resources"]) == (
            "a",
            "job of a",
            os.getpid(),
            [Y],
        )
        assert holder["since"]
        assert holder["host"]
    assert files.list_files(f"{store}/leases", ".json") == []


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (([X], []), ([Y], []), True),
        (([], [X]), ([], [X]), True),
        (([X], []), ([], [X]), False),
        (([], [X]), ([X], []), False),
        (([X], [Y]), ([], [Y]), True),
    ],
)
def test_exclusive_goes_with_nothing_and_shared_with_shared(store, first, second, together):
    with claims(store, "a") as one, claims(store, "b") as other:
        one.take(*first)
        if together:
            other.take(*second)
            return
        with pytest.raises(Held):
            other.take(*second)


def test_who_is_refused_keeps_what_it_held_and_nothing_of_what_it_wanted(store):
    with claims(store, "a") as first, claims(store, "b") as second, claims(store, "c") as third:
        first.take([X])
        second.take([], [Y])
        with pytest.raises(Held):
            second.take([X, "score/z"])
        third.take(["score/z"], [Y])
        assert claimed(store) == {X, Y, "score/z"}


def test_what_is_given_up_others_may_take_while_the_run_goes_on(store):
    with claims(store, "a") as first, claims(store, "b") as second:
        first.take([X, Y])
        first.give_up([X])
        second.take([X])
        with pytest.raises(Held):
            second.take([Y])
        first.check()


def test_who_waits_may_look_without_being_in_the_way(store):
    with claims(store, "a") as first, claims(store, "b") as waiting:
        first.take([X])
        assert [one["run"] for one in waiting.in_the_way([X, Y])] == ["a"]
        first.take([Y])
        first.give_up([X])
        assert waiting.in_the_way([X]) == []
        assert [one["resources"] for one in waiting.in_the_way([X], [Y])] == [[Y]]
        age(store, "a", DEAD_AFTER + 1)
        assert waiting.in_the_way([X, Y]) == []
        waiting.take([X, Y])


def test_a_run_that_takes_nothing_writes_nothing(store):
    with claims(store, "a") as idle:
        idle.give_up([X])
    assert not files.exists(store)


WANTS = [([X], []), ([], [X]), ([X], [Y]), ([Y], [X])]


def play(store: str, wants: list[tuple[list[str], list[str]]], order: Iterator[int]) -> list[bool]:
    """One try of each claimant, a step at a time in this order; who holds at the end. Never two that may not."""
    players = [claims(store, f"r{number}") for number in range(len(wants))]
    steps = [
        player.attempt(frozenset(exclusive), frozenset(shared))
        for player, (exclusive, shared) in zip(players, wants, strict=True)
    ]
    running = set(range(len(wants)))
    for number in itertools.chain(order, itertools.cycle(range(len(wants)))):
        if not running:
            break
        if number in running and next(steps[number], None) is None:
            running.discard(number)
            for one, other in itertools.combinations(players, 2):
                assert not one.exclusive & (other.exclusive | other.shared), "two hold the same"
                assert not one.shared & other.exclusive, "two hold the same"
    holds = [bool(player.exclusive | player.shared) for player in players]
    for player in players:
        player.release()
    return holds


@pytest.mark.parametrize("other", WANTS[:2], ids=["exclusive", "shared"])
def test_of_two_in_whatever_order_of_their_steps_never_both_hold(store, other):
    steps = 4  # written, listed, read, withdrawn
    for firsts in itertools.combinations(range(2 * steps), steps):
        order = iter([0 if place in firsts else 1 for place in range(2 * steps)])
        assert sum(play(store, [WANTS[0], other], order)) <= 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wants=st.lists(st.sampled_from(WANTS), min_size=3, max_size=3),
    order=st.lists(st.integers(0, 2), max_size=20),
)
def test_of_three_in_whatever_order_of_their_steps_never_two_hold_what_they_may_not(store, wants, order):
    play(store, wants, iter(order))


def test_one_after_the_other_the_first_holds(store):
    assert play(store, [WANTS[0]] * 3, iter([0] * 9)) == [True, False, False]


def test_who_crashes_after_any_step_keeps_others_waiting_for_a_minute_at_most(store):
    for crash_after in range(1, 4):
        crashed = claims(store, f"crashed{crash_after}")
        steps = crashed.attempt(frozenset([X]), frozenset())
        for _ in range(crash_after):
            next(steps, None)
        with claims(store, f"next{crash_after}") as later:
            with pytest.raises(Held):
                later.take([X])
            age(store, crashed.run, DEAD_AFTER + 1)
            later.take([X])


def test_a_claim_of_another_host_counts_until_it_is_a_minute_old_and_is_then_removed(store):
    of_another_host(store, "far", exclusive=[X])
    with claims(store, "a") as mine:
        with pytest.raises(Held) as held:
            mine.take([X])
        assert held.value.holders[0]["host"] == "elsewhere"
        age(store, "far", DEAD_AFTER - 5)
        with pytest.raises(Held):
            mine.take([X])
        age(store, "far", 10)
        mine.take([X])
        assert living_runs(store) == {"a"}
        assert files.list_files(f"{store}/leases", ".json") == [mine.path]


def test_ages_are_told_by_the_stores_clock_alone(store, monkeypatch):
    """The store may be years behind or ahead of this machine: stamps are compared with stamps."""
    of_another_host(store, "fresh", exclusive=[X])
    of_another_host(store, "stale", exclusive=[Y])
    stamped = files.list_stamped

    def years_behind(folder, suffix):
        ages = {"fresh.json": 20.0, "stale.json": DEAD_AFTER + 20.0}
        return [(path, 1000.0 - ages.get(os.path.basename(path), 0.0)) for path, _ in stamped(folder, suffix)]

    monkeypatch.setattr(files, "list_stamped", years_behind)
    with claims(store, "a") as mine:
        mine.take([Y])
        with pytest.raises(Held):
            mine.take([X])
        assert living_runs(store) == {"a", "fresh"}


HOLD_AND_SAY_SO = """
import sys
import threading
from storage.leases import Claims
claims = Claims(sys.argv[1], "killed", {"job": "birds"})
claims.take(["encode_images/x"])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_claim_of_a_process_of_this_host_is_dead_with_it(store):
    command = [sys.executable, "-c", HOLD_AND_SAY_SO, store]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with claims(store, "a") as mine:
            with pytest.raises(Held) as held:
                mine.take([X])
            assert held.value.holders[0]["process"] == process.pid
            process.kill()
            process.wait()
            assert living_runs(store) == set()
            mine.take([X])
            assert living_runs(store) == {"a"}


def test_a_number_that_another_process_has_now_does_not_keep_a_claim_alive(store):
    with claims(store, "a") as mine:
        mine.take([X])
        path = Path(mine.path)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "former", "started": "1"}))
        os.rename(path, path.with_name("former.json"))
        assert living_runs(store) == set()


def test_who_was_suspended_for_long_has_lost_its_claim_until_it_takes_again(store, monkeypatch):
    with claims(store, "a") as mine:
        mine.take([X])
        mine.check()
        now = leases._now()
        monkeypatch.setattr(leases, "_now", lambda: now + LOST_AFTER + 1)
        with pytest.raises(LeaseLost, match="out of touch"):
            mine.check()
        mine.renew()
        with pytest.raises(LeaseLost):
            mine.check()
        mine.take([])
        mine.check()
        assert claimed(store) == {X}


def test_whose_claim_was_taken_for_dead_notices_and_leaves_it_to_the_other(store):
    with claims(store, "a") as mine, claims(store, "b") as other:
        mine.take([X], [Y])
        age(store, "a", DEAD_AFTER + 1)
        other.take([X])
        with pytest.raises(LeaseLost):
            mine.check()
        mine.renew()
        assert mine.exclusive == frozenset()
        other.check()
        with pytest.raises(Held):
            mine.take([X])


def test_a_claim_is_renewed_while_its_run_computes(store, monkeypatch):
    renewed = threading.Event()
    monkeypatch.setattr(leases, "RENEWED_EVERY", 0.01)
    monkeypatch.setattr(Claims, "renew", lambda self: renewed.set())
    with claims(store, "a") as mine:
        mine.take([X])
        assert renewed.wait(60)


def test_a_sweep_that_takes_the_temporary_of_a_first_claim_does_no_harm(store, monkeypatch):
    replace, swept = os.replace, []

    def swept_just_before(source, target):
        if not swept:
            swept.append(files.sweep_temporaries(store, lambda run: False))
        replace(source, target)

    monkeypatch.setattr(os, "replace", swept_just_before)
    with claims(store, "a") as mine:
        mine.take([X])
        assert swept == [1]
        assert claimed(store) == {X}


def test_claims_on_an_object_store_are_kept_and_told_apart_as_in_a_folder(bucket):
    store = f"{bucket}/runs"
    of_another_host(store, "far", exclusive=[Y])
    with claims(store, "a") as first, claims(store, "b") as second:
        first.take([X])
        with pytest.raises(Held) as held:
            second.take([X, Y])
        assert {one["run"] for one in held.value.holders} == {"a", "far"}
        first.check()
        first.give_up([X])
        second.take([X])
        assert living_runs(store) == {"a", "b", "far"}
    assert living_runs(store) == {"far"}
