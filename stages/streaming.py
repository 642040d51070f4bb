"""Stream batches of rows through a pool of Ray actors, and find the row that kills its worker.

Plain Ray tasks and actors, not a Ray Data plan: when a worker dies (a codec's crash, memory) the driver must know
which rows it held. What died with a node goes to another actor; what died alone is suspected (`stages.batches`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from stages.actor_pool import ActorPool, Event, Member, actor_deaths, is_loss
from stages.batches import TRIES, Batch, Done, Queue

LOOK_SECONDS = 5.0
"""How often the pool is measured against the cluster."""
LOSSES = 10
"""How often every actor may be lost with its node, without a single batch done in between, before the stage ends."""


class Staff(Protocol):
    """What a stream asks about its actors while it runs (`stages.staff.Staff`)."""

    def wanted(self) -> int: ...
    def room_on(self, node: str) -> int: ...
    def nobody_works(self) -> None: ...
    def somebody_works(self) -> None: ...
    def tell(self, text: str) -> None: ...


def stream(
    ray: Any,
    batches: Iterable[Batch],
    start_actor: Callable[[], Any],
    submit: Callable[[Any, Batch], Any],
    staff: Staff,
    *,
    in_flight: int = 2,
    seen: Sequence[str] = (),
) -> Iterator[Done]:
    """Yield a `Done` for every batch, in the order in which they finish.

    `start_actor()` starts an actor, whose method `setup` is called first; `submit(actor, batch)` returns the reference
    of its answer; an actor has `in_flight` batches at most, those that wait among them. There are as many actors as
    `staff.wanted()` says, asked again every few seconds and after a death. An exception of the actor's own code is
    raised here, and RuntimeError when workers die before they work, or nodes sooner than anything is done. Where
    nothing moves and a node has more actors than `staff.room_on(node)`, which leaves none of it to what feeds them, the
    last ones are let go of.
    FileNotFoundError when an actor comes to a node that does not see one of the paths `seen`.
    """
    return _Stream(ray, Queue(batches), ActorPool(ray, start_actor, in_flight, seen), submit, staff).run()


class _Stream:
    def __init__(self, ray: Any, queue: Queue, pool: ActorPool, submit: Callable[[Any, Batch], Any], staff: Staff):
        self.ray, self.queue, self.pool, self.submit, self.staff = ray, queue, pool, submit, staff
        self.failed_starts = 0
        self.losses = 0
        self.most_at_once = 0
        self.looked = -LOOK_SECONDS
        self.lost: set[str | None] = set()
        self.enough: tuple[frozenset[str], int] | None = None
        """on those nodes no more actors than that: more were too many"""

    def run(self) -> Iterator[Done]:
        """Yield what becomes of every batch; all actors are stopped at the end, however it comes."""
        try:
            while self.pool.flying or not self.queue.empty:
                self._measure()
                self._hand_out()
                answered = self.pool.answered(LOOK_SECONDS)
                if not answered:
                    self.pool.check_home()
                    self._thin_out()
                for reference in answered:  # all of them: two actors that are ready at once share what there is
                    if (event := self.pool.event_of(reference)) is not None:
                        yield from self._settle(event)
        finally:
            self.pool.stop()

    def _measure(self) -> None:
        """From time to time, hold the pool against the cluster."""
        if self.queue.empty or time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        wanted = max(1, self.staff.wanted())
        if self.enough is not None and self.enough[0] == self.pool.living():
            wanted = min(wanted, self.enough[1])
        self.pool.grow_to(wanted)
        self.most_at_once = max(self.most_at_once, len(self.pool.members))
        if self.pool.at_work:
            self.staff.somebody_works()
        else:
            self.staff.nobody_works()

    def _thin_out(self) -> None:
        """Nothing moves: see to it that no node is full of actors, which wait for what has no room beside them.

        Ray counts what actors hold, and nothing else. One that was started for a node of which nobody knew yet that it
        is dead comes to another.
        """
        crowd = self.pool.crowd(self.staff.room_on)
        for member in crowd:
            for batch in self.pool.remove(member):
                self.queue.give_back(batch)
        if crowd:
            self.enough = self.pool.living(), max(1, len(self.pool.members))

    def _hand_out(self) -> None:
        """The first batch of every actor before the second of any, so that the last ones keep all of them busy."""
        for depth in range(self.pool.in_flight):
            for member in self.pool.free():
                if len(member.load) == depth and (batch := self.queue.take(list(member.load.values()))) is not None:
                    self.pool.submit(member, batch, self.submit(member.actor, batch))

    def _settle(self, event: Event) -> Iterator[Done]:
        """An answer is passed on; what a death leaves behind goes back to the queue."""
        if event.death is None:
            if isinstance(event.what, Batch):
                self.losses = self.failed_starts = 0
                yield Done(answer=event.answer)
            elif event.what == "setup":
                self.failed_starts = 0
            return
        self.looked = -LOOK_SECONDS
        if isinstance(event.what, Batch):
            yield from self._lost_batch(event.member, event.what, event.death)
            return
        self.pool.remove(event.member)
        if self._is_gone(event.member, event.death):
            self._count_loss(event.member.node, event.death)
            return
        self.failed_starts += 1
        if self.failed_starts > TRIES:
            raise RuntimeError(f"a worker died {self.failed_starts} times while it loaded its model: {event.death}")

    def _lost_batch(self, member: Member, batch: Batch, death: Exception) -> Iterator[Done]:
        of_actor = isinstance(death, actor_deaths(self.ray))
        companions = self.pool.remove(member) if of_actor else []  # else what fed the actor died, and it lives on
        if is_loss(self.ray, death) or (of_actor and self._is_gone(member, death)):
            for lost in (batch, *companions):
                self.queue.put_back(lost, death)
            self._count_loss(member.node if of_actor else None, death)
            return
        for companion in companions:
            self.queue.suspect(companion)
        if companions and not batch.suspect:
            self.queue.suspect(batch)
        else:
            yield from self.queue.blame(batch, death, member.node if of_actor else None, self.pool.living())

    def _is_gone(self, member: Member, death: Exception) -> bool:
        """Whether an actor died with its node; of one that had not found its place, whether any node died since."""
        if is_loss(self.ray, death):
            return True
        living = self.pool.living()
        return member.node not in living if member.node is not None else bool(member.among - living)

    def _count_loss(self, node: str | None, death: Exception) -> None:
        if node not in self.lost:
            self.staff.tell("lost a node, or touch with it; what it had in hand goes to others")
        self.lost.add(node)
        self.losses += 1
        if self.losses > LOSSES * self.most_at_once:
            raise RuntimeError(
                f"{self.losses} times in a row workers were lost with their nodes before a single batch was done. "
                f"What is computed is kept; run again on nodes that stay. ({death})"
            )
