"""Streaming through real Ray actors: every row is answered once, and the one that kills its worker is found."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import streaming
from stages.streaming import Batch, batches_of, stream

ROWS = [{"n": number} for number in range(9)]


@pytest.fixture
def one_try(monkeypatch):
    """A batch is halved after its first death alone: the same path, with fewer starts of workers."""
    monkeypatch.setattr(streaming, "TRIES", 1)


def actors_that(ray, *, die_on=None, out_of_memory_on=None, raise_on=None, setup: str = "works"):
    """`start_actor` for actors that answer rows with ten times their number."""

    class Worker:
        def setup(self) -> None:
            if setup == "dies":
                os._exit(1)
            if setup == "raises":
                raise FileNotFoundError("weights.pt")

        def answer(self, rows: list[dict]) -> list[int]:
            for row in rows:
                if row["n"] == die_on:
                    os._exit(1)
                if row["n"] == out_of_memory_on:
                    raise ray.exceptions.OutOfMemoryError("what Ray says of an actor that it killed for memory")
                if row["n"] == raise_on:
                    raise ValueError(f"row {row['n']} is bad")
            return [10 * row["n"] for row in rows]

    return ray.remote(num_cpus=0.5, max_restarts=0)(Worker).remote


def answers_and_killers(found) -> tuple[list[int], list[tuple[dict, str]]]:
    done = list(found)
    answers = [value for each in done if each.killer is None for value in each.answer]
    return sorted(answers), [(each.killer, each.reason) for each in done if each.killer is not None]


def plainly(actor, batch: Batch):
    return actor.answer.remote(batch.rows)


@given(rows=st.integers(0, 20), size=st.integers(1, 7))
def test_batches_hold_every_row_once_in_order_and_halves_do_too(rows, size):
    made = [{"n": number} for number in range(rows)]
    batches = list(batches_of(made, size))
    assert [row for batch in batches for row in batch.rows] == made
    assert all(len(batch.rows) == size for batch in batches[:-1])
    assert not any(batch.suspect for batch in batches)
    for batch in batches:
        first, second = batch.halves()
        assert first.rows + second.rows == batch.rows
        assert first.suspect
        assert second.suspect


def test_every_batch_is_answered_once_by_whichever_actor_is_free(ray):
    found = stream(ray, batches_of(ROWS, 2), actors_that(ray), plainly, actors=2)
    assert answers_and_killers(found) == ([10 * row["n"] for row in ROWS], [])


def test_no_batches_start_no_actor(ray):
    assert list(stream(ray, iter(()), lambda: pytest.fail("an actor was started"), plainly, actors=0)) == []


def test_a_row_that_kills_its_actor_is_found_and_all_others_are_answered(ray, one_try):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, die_on=4), plainly, actors=1)
    answers, killers = answers_and_killers(found)
    assert answers == [10 * row["n"] for row in ROWS if row["n"] != 4]
    ((killer, reason),) = killers
    assert killer == {"n": 4}
    assert reason.startswith("killed its worker")


def test_an_actor_that_was_killed_for_memory_is_replaced(ray, one_try):
    started = []

    def start_actor():
        started.append(actors_that(ray, out_of_memory_on=1)())
        return started[-1]

    answers, killers = answers_and_killers(stream(ray, batches_of(ROWS[:3], 1), start_actor, plainly, actors=1))
    assert (answers, [killer for killer, _ in killers]) == ([0, 20], [{"n": 1}])
    assert len(started) > 1


def test_a_row_whose_decoding_dies_is_found_and_the_actor_lives_on(ray, one_try):
    def decode(rows: list[dict]) -> list[dict]:
        if any(row["n"] == 7 for row in rows):
            os._exit(1)
        return rows

    started = []

    def start_actor():
        started.append(1)
        return actors_that(ray)()

    task = ray.remote(num_cpus=0.5, max_retries=0)(decode)
    found = stream(
        ray,
        batches_of(ROWS, 5),
        start_actor,
        lambda actor, batch: actor.answer.remote(task.remote(batch.rows)),
        actors=1,
    )
    answers, killers = answers_and_killers(found)
    assert answers == [10 * row["n"] for row in ROWS if row["n"] != 7]
    assert [killer for killer, _ in killers] == [{"n": 7}]
    assert len(started) == 1


def test_an_exception_of_the_actors_code_is_raised_and_not_tried_again(ray):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, raise_on=4), plainly, actors=1)
    with pytest.raises(ValueError, match="row 4 is bad"):
        list(found)


def test_an_exception_while_a_model_is_loaded_is_raised_at_once(ray):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, setup="raises"), plainly, actors=1)
    with pytest.raises(FileNotFoundError, match=r"weights\.pt"):
        list(found)


def test_actors_that_die_while_they_load_give_up_and_blame_no_row(ray, one_try):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, setup="dies"), plainly, actors=1)
    with pytest.raises(RuntimeError, match="a worker died 2 times while it loaded its model"):
        list(found)


def test_what_is_left_unread_stops_its_actors(ray):
    started = []

    def start_actor():
        started.append(actors_that(ray)())
        return started[-1]

    found = stream(ray, batches_of(ROWS, 1), start_actor, plainly, actors=1)
    next(found)
    found.close()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(started[0].answer.remote([]))
