"""Streaming through real Ray actors: every row is answered once, and the one that kills its worker is found."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import batches as queueing
from stages import streaming
from stages.batches import Batch, Queue, batches_of
from stages.streaming import stream
from storage.shards import ShardTable

ROWS = [{"n": number} for number in range(9)]


@pytest.fixture
def one_try(monkeypatch):
    """A batch is halved after its first death alone: the same path, with fewer starts of workers."""
    monkeypatch.setattr(queueing, "TRIES", 1)
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


class Staff:
    """As many actors as a test says, and what was told."""

    def __init__(self, *counts: int):
        self.counts = list(counts)
        self.told: list[str] = []

    def wanted(self) -> int:
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    def room_on(self, node: str) -> int:
        return 3  # of actors of half a CPU, on two CPUs, beside what feeds them

    def nobody_works(self) -> None: ...

    def somebody_works(self) -> None: ...

    def tell(self, text: str) -> None:
        self.told.append(text)


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
    found = stream(ray, batches_of(ROWS, 2), actors_that(ray), plainly, Staff(2))
    assert answers_and_killers(found) == ([10 * row["n"] for row in ROWS], [])


def test_a_node_full_of_actors_is_thinned_out_so_that_what_feeds_them_finds_room(ray, tmp_path):
    class Worker:
        """One of four that fill the machine before any of them works."""

        def __init__(self) -> None:
            (tmp_path / str(os.getpid())).touch()

        def setup(self) -> None:
            while len(os.listdir(tmp_path)) < 4:
                time.sleep(0.01)

        def answer(self, rows: list[dict]) -> list[int]:
            return [10 * row["n"] for row in rows]

    started, feed = [], ray.remote(num_cpus=0.25, max_retries=0)(lambda rows: rows)

    def start_actor():
        started.append(ray.remote(num_cpus=0.5, max_restarts=0)(Worker).remote())
        return started[-1]

    def submit(actor, batch: Batch):
        return actor.answer.remote(feed.remote(batch.rows))

    found = stream(ray, batches_of(ROWS, 2), start_actor, submit, Staff(4))
    assert answers_and_killers(found) == ([10 * row["n"] for row in ROWS], [])
    assert len(started) == 4  # and no other in the place of the one that was let go of


def test_no_batches_start_no_actor(ray):
    assert list(stream(ray, iter(()), lambda: pytest.fail("an actor was started"), plainly, Staff(0))) == []


def test_a_row_that_kills_its_actor_is_found_and_all_others_are_answered(ray, one_try):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, die_on=4), plainly, Staff(1))
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

    answers, killers = answers_and_killers(stream(ray, batches_of(ROWS[:3], 1), start_actor, plainly, Staff(1)))
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
        Staff(1),
    )
    answers, killers = answers_and_killers(found)
    assert answers == [10 * row["n"] for row in ROWS if row["n"] != 7]
    assert [killer for killer, _ in killers] == [{"n": 7}]
    assert len(started) == 1


def test_an_exception_of_the_actors_code_is_raised_and_not_tried_again(ray):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, raise_on=4), plainly, Staff(1))
    with pytest.raises(ValueError, match="row 4 is bad"):
        list(found)


def test_an_exception_while_a_model_is_loaded_is_raised_at_once(ray):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, setup="raises"), plainly, Staff(1))
    with pytest.raises(FileNotFoundError, match=r"weights\.pt"):
        list(found)


def test_actors_that_die_while_they_load_give_up_and_blame_no_row(ray, one_try):
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray, setup="dies"), plainly, Staff(1))
    with pytest.raises(RuntimeError, match="a worker died 2 times while it loaded its model"):
        list(found)


def test_what_is_left_unread_stops_its_actors(ray):
    started = []

    def start_actor():
        started.append(actors_that(ray)())
        return started[-1]

    found = stream(ray, batches_of(ROWS, 1), start_actor, plainly, Staff(1))
    next(found)
    found.close()

    def call_until_it_is_gone() -> None:
        while True:
            ray.get(started[0].answer.remote([]))

    with pytest.raises(ray.exceptions.RayActorError):
        call_until_it_is_gone()


class Lost(Exception):
    """Stands for the death that took a batch away."""


def batch(*numbers: int) -> Batch:
    return Batch([{"n": number} for number in numbers])


def test_a_batch_that_is_lost_with_its_node_comes_before_fresh_ones_and_is_no_suspect():
    queue = Queue([batch(1), batch(2)])
    lost = queue.take([])
    queue.put_back(lost, Lost())
    assert queue.take([batch(9)]) is lost
    assert not lost.suspect
    assert queue.take([]).rows == [{"n": 2}]
    assert queue.empty


def test_a_batch_that_is_lost_again_and_again_ends_the_stage():
    queue = Queue([batch(1, 2)])
    for _ in range(queueing.MOVES):
        queue.put_back(queue.take([]), Lost())
    with pytest.raises(RuntimeError, match="a batch of 2 rows was lost 11 times with the node it was on"):
        queue.put_back(queue.take([]), Lost())


def test_deaths_on_nodes_that_are_gone_since_do_not_count_against_a_batch():
    queue = Queue([batch(1)])
    for node in ("a", "b", "c", "a"):
        found = list(queue.blame(queue.take([]), Lost(), node, living=frozenset("a")))
        assert found == []
    (done,) = queue.blame(queue.take([]), Lost(), "a", living=frozenset("a"))
    assert done.killer == {"n": 1}
    assert done.reason == "killed its worker: Lost"


def test_a_suspect_is_alone_with_its_actor():
    queue = Queue([batch(1), batch(2), batch(3)])
    suspect = queue.take([])
    queue.suspect(suspect)
    assert queue.take([batch(9)]) is None
    assert queue.take([]) is suspect
    assert queue.take([suspect]) is None
    assert queue.take([]).rows == [{"n": 2}]


def test_actors_without_room_hold_nothing_up_and_are_gone_at_the_end(ray):
    started = []

    def start_actor():
        large = ray.remote(num_cpus=64, max_restarts=0)(type("Large", (), {"setup": lambda self: None}))
        started.append(large.remote() if started else actors_that(ray)())
        return started[-1]

    found = stream(ray, batches_of(ROWS, 2), start_actor, plainly, Staff(3))
    assert answers_and_killers(found) == ([10 * row["n"] for row in ROWS], [])
    assert len(started) == 3
    with pytest.raises(ray.exceptions.RayActorError, match="cancelled before it started"):
        ray.get(started[-1].setup.remote(), timeout=60)


def test_an_actor_on_a_node_that_does_not_see_the_store_ends_the_stream_before_it_works(ray, tmp_path):
    seen, unseen = ShardTable(str(tmp_path / "seen")), str(tmp_path / "unseen")
    seen.create({})
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray), plainly, Staff(1), seen=[seen.folder])
    assert answers_and_killers(found)[1] == []
    found = stream(ray, batches_of(ROWS, 3), actors_that(ray), plainly, Staff(1), seen=[seen.folder, unseen])
    with pytest.raises(
        FileNotFoundError, match=f"does not see {unseen}: store and images must be in folders that all nodes"
    ):
        list(found)


class Dying:
    """A Ray whose node on this machine dies once an actor is started, after which nothing is ever answered."""

    def __init__(self):
        self.dead = False

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "here")

    def nodes(self) -> list[dict]:
        return [{"NodeID": "here", "Alive": not self.dead}]

    def wait(self, references, **how) -> tuple[list, list]:
        return [], references

    def kill(self, actor) -> None: ...


def test_a_ray_that_died_on_this_machine_ends_the_stream_instead_of_being_waited_for():
    dying = Dying()

    def start_actor():
        dying.dead = True
        method = SimpleNamespace(remote=lambda *given: object())
        return SimpleNamespace(setup=method, __ray_call__=method)

    with pytest.raises(RuntimeError, match="Ray ended on this machine"):
        list(stream(dying, batches_of(ROWS, 1), start_actor, plainly, Staff(1)))


class Prompt(Dying):
    """A Ray that answers all calls at once."""

    def __init__(self, exceptions):
        super().__init__()
        self.exceptions = exceptions

    def wait(self, references, **how) -> tuple[list, list]:
        return references, []

    def get(self, reference) -> object:
        return reference


def test_few_batches_are_shared_by_the_actors_that_are_ready():
    from ray import exceptions

    method = SimpleNamespace(remote=lambda *given: object())
    taken = []

    def submit(actor, batch: Batch) -> object:
        taken.append(actor)
        return object()

    found = stream(
        Prompt(exceptions),
        batches_of(ROWS[:2], 1),
        lambda: SimpleNamespace(setup=method, __ray_call__=method),
        submit,
        Staff(2),
    )
    assert len(list(found)) == 2
    assert taken[0] is not taken[1]


class Crumbling(Prompt):
    """A Ray that loses the node of every actor before it has loaded anything."""

    def wait(self, references, **how) -> tuple[list, list]:
        return references[-1:], references[:-1]

    def get(self, reference) -> None:
        raise self.exceptions.NodeDiedError("gone")


def test_a_cluster_that_loses_nodes_sooner_than_they_work_ends_the_stream():
    from ray import exceptions

    started = []

    def start_actor():
        started.append(1)
        method = SimpleNamespace(remote=lambda *given: object())
        return SimpleNamespace(setup=method, __ray_call__=method)

    found = stream(Crumbling(exceptions), batches_of(ROWS, 1), start_actor, plainly, Staff(2))
    with pytest.raises(RuntimeError, match=r"21 times in a row workers were lost with their nodes.*is kept; run again"):
        list(found)
    assert len(started) == 22


def test_a_pool_grows_when_more_are_wanted(ray, monkeypatch):
    monkeypatch.setattr(streaming, "LOOK_SECONDS", 0.0)
    started = []

    def start_actor():
        started.append(1)
        return actors_that(ray)()

    found = stream(ray, batches_of(ROWS, 1), start_actor, plainly, Staff(1, 2), in_flight=1)
    assert answers_and_killers(found) == ([10 * row["n"] for row in ROWS], [])
    assert len(started) == 2
