"""The actors of a stage: how large each is, how many there should be now, and how long to wait for room for them.

Pools of GPUs that are scaled by need begin with none, so a cluster that has less than was asked for is waited for. What
waits is a placement group: an autoscaler counts it as need, and it is gone with this process, however that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from stages.pool_size import Actors, ClusterTooSmall, PoolSize, living_nodes, pool_size, wanted_actors

LOOK_SECONDS = 2.0
REMIND_SECONDS = 60.0
STARTING_MINUTES = 10.0
"""How long no actor at all may find room that the cluster has, but gives to others, before the stage ends."""


@dataclass
class Waiting:
    """Says once, and again every minute, what is waited for, and ends the stage when it was too long.

    `begun` is None while nothing is waited for; `quiet` seconds pass before the first word.
    """

    stage: str
    tell: Callable[[str], None]
    minutes: float
    quiet: float = 0.0
    begun: float | None = None
    told: float | None = None

    def go_on(self, reason: str) -> None:
        """Still waiting, for `reason`. Raises RuntimeError with it once the time is spent."""
        now = time.monotonic()
        self.begun = now if self.begun is None else self.begun
        if now - self.begun >= 60 * self.minutes:
            raise RuntimeError(f"{self.stage}: {reason}. Waited {self.minutes:g} minutes (resources.wait_minutes).")
        if now - self.begun >= self.quiet and (self.told is None or now - self.told >= REMIND_SECONDS):
            self.told = now
            left = self.minutes - (now - self.begun) / 60
            self.tell(f"{reason}. Waiting, for {left:.0f} minutes at most (resources.wait_minutes)")

    def over(self) -> None:
        """What was waited for is there."""
        self.begun = self.told = None


@dataclass
class Staff:
    """What `find_room` found for a stage, and what it tells a stream of batches."""

    ray: Any
    size: PoolSize
    actors: Actors
    may_grow: bool
    waiting: Waiting
    tell: Callable[[str], None]
    most: int | None = None
    """number of batches, where that is known: no more actors than these"""

    def wanted(self) -> int:
        """How many actors there should be on the nodes that there are now."""
        count = wanted_actors(self.size, self.actors, living_nodes(self.ray), may_grow=self.may_grow)
        return count if self.most is None else min(count, self.most)

    def room_on(self, node: str) -> int:
        """How many actors the node of this id holds beside their decoding; 0 of one that is gone."""
        found = [each["Resources"] for each in self.ray.nodes() if each["NodeID"] == node and each["Alive"]]
        return self.size.room([resources for resources in found if resources.get("CPU", 0) > 0])

    def nobody_works(self) -> None:
        """No actor found room yet. Raises RuntimeError when that has been so for too long."""
        each = f"{self.size.cpus:g} CPUs" + (f" and {self.size.gpus:g} GPUs" if self.size.gpus else "")
        self.waiting.go_on(f"no actor found room: each needs {each}; {_told(living_nodes(self.ray))}, all taken")

    def somebody_works(self) -> None:
        self.waiting.over()


def find_room(
    ray: Any,
    stage: str,
    *,
    gpus: float | Literal["auto"] = 0.0,
    actors: Actors = "auto",
    minutes: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Staff:
    """The staff for `actors` actors of `gpus` GPUs, once the cluster can hold the least number of them.

    `minutes` is how long to wait for that; None for a cluster that never grows. `gpus: auto` is what there is, and
    waits for nothing but a node. Raises RuntimeError, saying what was asked, what exists and which setting to change;
    at once, as ClusterTooSmall, where nothing is waited for.
    """
    patience = minutes or 0.0
    waiting = Waiting(stage, tell, patience)
    nodes = living_nodes(ray)
    try:
        size = pool_size(nodes, gpus, actors)
    except ClusterTooSmall as lack:
        if patience == 0 or (gpus == "auto" and nodes):
            raise
        with _need_shown(ray, lack.lacking):
            size = _await(ray, waiting, gpus, actors)
    starting = Waiting(stage, tell, max(patience, STARTING_MINUTES), quiet=REMIND_SECONDS)
    return Staff(ray, size, actors, minutes is not None, starting, tell)


def _await(ray: Any, waiting: Waiting, gpus: float | Literal["auto"], actors: Actors) -> PoolSize:
    while True:
        try:
            return pool_size(living_nodes(ray), gpus, actors)
        except ClusterTooSmall as lack:
            waiting.go_on(str(lack))
        time.sleep(LOOK_SECONDS)


@contextmanager
def _need_shown(ray: Any, lacking: list[dict[str, float]]) -> Iterator[None]:
    """While this lasts, an autoscaler sees that these resources are needed."""
    group = ray.util.placement_group(lacking)
    try:
        yield
    finally:
        ray.util.remove_placement_group(group)


def _told(nodes: list[dict[str, float]]) -> str:
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"the cluster has {len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs in all"
