"""Stream batches of rows through a pool of Ray actors, and find the row that kills its worker.

Plain Ray tasks and actors, not a Ray Data plan: when a worker dies (a codec's crash, memory) the driver must know
which rows it held. Batches that were on a dead actor are tried again alone; one that dies alone three times is halved,
until a single row is left, and that row is rejected (architecture.md 4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

TRIES = 3


@dataclass
class Batch:
    """Rows that travel together, and how often they were on an actor that died."""

    rows: list[dict[str, Any]]
    deaths: int = 0

    @property
    def suspect(self) -> bool:
        return self.deaths > 0

    def halves(self) -> tuple[Batch, Batch]:
        """The two halves of a batch that killed its worker, to be tried alone as well."""
        middle = len(self.rows) // 2
        return Batch(self.rows[:middle], deaths=1), Batch(self.rows[middle:], deaths=1)


@dataclass
class Done:
    """What became of a batch: the actor's answer, or (when it killed its worker) the single row and the reason."""

    answer: Any = None
    killer: dict[str, Any] | None = None
    reason: str = ""


def batches_of(rows: Iterable[dict[str, Any]], size: int) -> Iterator[Batch]:
    """Rows in batches of at most `size`."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield Batch(batch)
            batch = []
    if batch:
        yield Batch(batch)


def stream(
    ray: Any,
    batches: Iterable[Batch],
    start_actor: Callable[[], Any],
    submit: Callable[[Any, Batch], Any],
    *,
    actors: int,
    in_flight: int = 2,
) -> Iterator[Done]:
    """Yield a `Done` for every batch, in the order in which they finish.

    `start_actor()` starts an actor, whose method `setup` is called first; `submit(actor, batch)` returns the reference
    of its answer; an actor has `in_flight` batches at most, those that wait among them. An exception of the actor's own
    code is raised here; a death is handled as the module says.
    """
    fresh, suspects = iter(batches), deque[Batch]()
    pool = _Pool(ray, start_actor, actors, in_flight)
    try:
        while True:
            for actor in pool.least_loaded():
                while (batch := _next_batch(pool, actor, fresh, suspects)) is not None:
                    pool.submit(actor, batch, submit)
            if not pool.flying and not suspects:
                return
            yield from _collect(pool, suspects)
    finally:
        pool.stop()


def _next_batch(pool: _Pool, actor: int, fresh: Iterator[Batch], suspects: deque[Batch]) -> Batch | None:
    """The batch this actor should take next: a suspect only when it would be alone there, else a fresh one."""
    load = pool.load(actor)
    if any(batch.suspect for batch in load) or len(load) >= pool.in_flight:
        return None
    if suspects:
        return suspects.popleft() if not load else None
    return next(fresh, None)


def _collect(pool: _Pool, suspects: deque[Batch]) -> Iterator[Done]:
    """Wait for an answer; on a death put the batches of that actor among the suspects."""
    reference = pool.wait()
    actor, batch = pool.take(reference)
    try:
        answer = pool.ray.get(reference)
    except _deaths(pool.ray) as death:
        if batch is not None and not isinstance(death, _actor_deaths(pool.ray)):
            yield from _suspect(batch, death, suspects, alone=True)  # what fed the actor died; the actor lives on
            return
        # A death in setup fails all that waited for it, in any order: no batch is to blame.
        in_setup = batch is None or pool.died_loading(actor)
        companions = pool.replace(actor, death, in_setup=in_setup)
        if in_setup and batch is not None:
            companions.append(batch)
        for companion in companions:
            companion.deaths = max(companion.deaths, 1)
            suspects.append(companion)
        if not in_setup:
            yield from _suspect(batch, death, suspects, alone=not companions)
    else:
        if batch is not None:
            yield Done(answer=answer)


def _suspect(batch: Batch, death: Exception, suspects: deque[Batch], *, alone: bool) -> Iterator[Done]:
    batch.deaths += 1 if alone or not batch.suspect else 0
    if batch.deaths <= TRIES:
        suspects.append(batch)
    elif len(batch.rows) > 1:
        suspects.extend(batch.halves())
    else:
        yield Done(killer=batch.rows[0], reason=f"killed its worker: {type(death).__name__}")


def _deaths(ray: Any) -> tuple[type[Exception], ...]:
    """Errors that mean a process or node went away, not that code raised."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.ObjectLostError,
        errors.OutOfMemoryError,
        errors.LocalRayletDiedError,
    )


def _actor_deaths(ray: Any) -> tuple[type[Exception], ...]:
    """Those after which an actor is gone; Ray says of one that it killed for memory only that memory ran out."""
    return ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError


class _Pool:
    """Actors by number, and what each has in flight; a None among that is the actor's setup."""

    def __init__(self, ray: Any, start_actor: Callable[[], Any], actors: int, in_flight: int):
        self.ray = ray
        self.in_flight = in_flight
        self.start_actor = start_actor
        self.actors: list[Any] = []
        self.flying: dict[Any, tuple[int, Batch | None]] = {}
        self.failed_starts = 0
        for number in range(actors):
            self._start(number)

    def _start(self, number: int) -> None:
        self.actors[number:] = [self.start_actor(), *self.actors[number + 1 :]]
        self.flying[self.actors[number].setup.remote()] = (number, None)

    def load(self, actor: int) -> list[Batch]:
        return [batch for number, batch in self.flying.values() if number == actor and batch is not None]

    def died_loading(self, actor: int) -> bool:
        """Whether a dead actor died in its setup: its answer may be there already and only not have been taken."""
        setup = [reference for reference, (number, batch) in self.flying.items() if number == actor and batch is None]
        try:
            self.ray.get(setup)
        except _deaths(self.ray):
            return True
        return False

    def least_loaded(self) -> list[int]:
        return sorted(range(len(self.actors)), key=lambda actor: len(self.load(actor)))

    def submit(self, actor: int, batch: Batch, submit: Callable[[Any, Batch], Any]) -> None:
        self.flying[submit(self.actors[actor], batch)] = (actor, batch)

    def wait(self) -> Any:
        """A reference that is ready: a setup before answers, since a dead actor fails all of them at once."""
        ready, _ = self.ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)
        if not ready:
            ready, _ = self.ray.wait(list(self.flying), num_returns=1)
        return min(ready, key=lambda reference: self.flying[reference][1] is not None)

    def take(self, reference: Any) -> tuple[int, Batch | None]:
        return self.flying.pop(reference)

    def replace(self, actor: int, death: Exception, *, in_setup: bool) -> list[Batch]:
        """Start a new actor in the place of a dead one; returns the other batches that were on it."""
        self.failed_starts = self.failed_starts + 1 if in_setup else 0
        if self.failed_starts > TRIES:
            raise RuntimeError(f"a worker died {self.failed_starts} times while it loaded its model: {death}")
        lost = [reference for reference, (number, _) in self.flying.items() if number == actor]
        batches = [batch for reference in lost if (batch := self.flying.pop(reference)[1]) is not None]
        self.ray.kill(self.actors[actor])
        self._start(actor)
        return batches

    def stop(self) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
