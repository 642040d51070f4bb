"""Batches of rows on their way through a pool: fresh ones, those to be tried again, and suspects.

A batch that was on an actor that died may have killed it, so it is tried again alone; one that dies alone three times
is halved, until a single row is left (architecture.md 4). A node that dies is no batch's fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

TRIES = 3
"""Deaths alone, on nodes that live on, after which a batch is halved or its row is given up."""
MOVES = 10
"""How often a batch may be lost with a node, or by a broken connection, before the stage ends."""


@dataclass
class Batch:
    """Rows that travel together, and what became of them so far."""

    rows: list[dict[str, Any]]
    suspect: bool = False
    """whether it may have killed an actor, and has to be tried alone"""
    deaths: list[str | None] = field(default_factory=list)
    """nodes where an actor died that had this batch alone; None where that is not known"""
    moves: int = 0
    """how often the cluster lost it"""

    def halves(self) -> tuple[Batch, Batch]:
        """The two halves of a batch that kills its worker, to be tried alone as well."""
        middle = len(self.rows) // 2
        return Batch(self.rows[:middle], suspect=True), Batch(self.rows[middle:], suspect=True)


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


class Queue:
    """Batches that wait for an actor."""

    def __init__(self, batches: Iterable[Batch]):
        self._fresh = iter(batches)
        self._next = next(self._fresh, None)
        self._again: deque[Batch] = deque()
        self._suspects: deque[Batch] = deque()

    @property
    def empty(self) -> bool:
        return self._next is None and not self._again and not self._suspects

    def take(self, load: Sequence[Batch]) -> Batch | None:
        """The batch for an actor that has `load` in hand: a suspect only where it is alone."""
        if any(batch.suspect for batch in load):
            return None
        if self._suspects:
            return self._suspects.popleft() if not load else None
        if self._again:
            return self._again.popleft()
        batch, self._next = self._next, next(self._fresh, None) if self._next is not None else None
        return batch

    def put_back(self, batch: Batch, death: Exception) -> None:
        """The cluster lost this batch. Raises RuntimeError when that happens to it again and again."""
        batch.moves += 1
        if batch.moves > MOVES:
            raise RuntimeError(
                f"a batch of {len(batch.rows)} rows was lost {batch.moves} times with the node it was on: nodes go "
                f"sooner than it can be computed, or it is what brings them down. What is computed is kept. ({death})"
            )
        self.give_back(batch)

    def give_back(self, batch: Batch) -> None:
        """Its actor was let go of, through no fault of the batch or of the cluster."""
        (self._suspects if batch.suspect else self._again).append(batch)

    def suspect(self, batch: Batch) -> None:
        """Its actor died, with others in hand: try it alone."""
        batch.suspect = True
        self._suspects.append(batch)

    def blame(self, batch: Batch, death: Exception, node: str | None, living: frozenset[str]) -> Iterator[Done]:
        """Its worker died, on `node`, with nothing else in hand: try again, halve, or give up its only row.

        Deaths on nodes that are gone since do not count: the worker died with its node, which was noticed later.
        """
        batch.suspect = True
        batch.deaths.append(node)
        batch.deaths = [where for where in batch.deaths if where is None or where in living]
        if len(batch.deaths) < TRIES:
            self._suspects.append(batch)
        elif len(batch.rows) > 1:
            self._suspects.extend(batch.halves())
        else:
            yield Done(killer=batch.rows[0], reason=f"killed its worker: {type(death).__name__}")
