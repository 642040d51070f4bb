"""How many actors a stage starts, what each asks of Ray, and how many threads torch gets in one.

Sized from what the cluster has, node by node; a part of a core always stays free for the tasks that read and decode.
The size of one actor is settled when a stage begins; how many there are follows the nodes that come and go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from stages.settings import ActorRange

DECODE_CPUS = 0.25
FEW_CORES = 4
"""Up to so many cores an actor with one thread each: as fast as one actor with all of them, whose threads wait for each
other (`python -m benchmarks.encode` tells which way the bare encoder prefers)."""
THREADS_ON_MANY_CORES = 4

Actors = Literal["auto"] | int | ActorRange
Node = dict[str, float]
"""what a node has, by resource"""


class ClusterTooSmall(RuntimeError):
    """The cluster has less than was asked for; `lacking` is what to ask of it, a dict of resources an actor."""

    def __init__(self, message: str, lacking: list[dict[str, float]]):
        super().__init__(message)
        self.lacking = lacking


@dataclass(frozen=True)
class PoolSize:
    """Actors in all, `num_cpus` and `num_gpus` of each, and threads of torch in each."""

    actors: int
    cpus: float
    gpus: float
    threads: int

    @property
    def resources(self) -> dict[str, float]:
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def room(self, nodes: list[Node]) -> int:
        """How many actors of this size these nodes hold beside their decoding."""
        return sum(self.room_on(node) for node in nodes)

    def room_on(self, node: Node) -> int:
        """How many it holds beside the tasks that decode for them."""
        fit = _times(node["CPU"] - 2 * DECODE_CPUS, self.cpus)
        if self.gpus:
            return min(fit, _times(node.get("GPU", 0.0), self.gpus))
        return min(fit, int(node["CPU"]) // self.threads)


def living_nodes(ray: Any) -> list[Node]:
    """What each node has that is alive and runs tasks."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def pool_size(nodes: list[Node], gpus: float | Literal["auto"] = 0.0, actors: Actors = "auto") -> PoolSize:
    """The pool for `gpus` GPUs an actor (auto: one where any node has one) and so many actors (auto: what fits).

    Raises ClusterTooSmall, saying what was asked and what exists, where nodes cannot hold the least number of actors.
    """
    if not nodes:
        raise ClusterTooSmall("the cluster has no node with CPUs", [{"CPU": 1.0}])
    each = (1.0 if any(node.get("GPU") for node in nodes) else 0.0) if gpus == "auto" else float(gpus)
    return _with_gpus(nodes, each, actors) if each else _without_gpus(nodes, actors)


def wanted_actors(pool: PoolSize, actors: Actors, nodes: list[Node], *, may_grow: bool) -> int:
    """How many actors there should be on the nodes that there are now.

    On a cluster that `may_grow` all that a range allows are asked for: those without room wait, which tells an
    autoscaler what is wanted.
    """
    if actors == "auto":
        return pool.room(nodes)
    if isinstance(actors, int):
        return actors
    return actors.max if may_grow and actors.max is not None else actors.clip(pool.room(nodes))


def _with_gpus(nodes: list[Node], each: float, actors: Actors) -> PoolSize:
    room = [_times(node.get("GPU", 0.0), each) for node in nodes]
    most = sum(room)
    least = 1 if actors == "auto" else actors if isinstance(actors, int) else actors.min
    if least > most:
        have = ", ".join(f"{node.get('GPU', 0.0):g}" for node in nodes)
        raise ClusterTooSmall(
            f"resources.encode asks for {least} actors of {each:g} GPUs; the cluster's nodes have {have} GPUs. "
            "Set resources.encode.gpus: 0 to encode on CPUs, or ask for fewer",
            [{"CPU": 1.0, "GPU": each}] * least,
        )
    cpus = min(_share(node["CPU"], count) for node, count in zip(nodes, room, strict=True) if count)
    count = most if actors == "auto" else actors if isinstance(actors, int) else actors.clip(most)
    return PoolSize(count, min(1.0, cpus), each, 1)


def _without_gpus(nodes: list[Node], actors: Actors) -> PoolSize:
    sizes = [int(node["CPU"]) or 1 for node in nodes]
    # Large nodes are what a cluster computes on, beside whatever head it has; small ones are all of use.
    cores = max(sizes) if actors == "auto" and max(sizes) > FEW_CORES else min(sizes)
    fitting = cores // (1 if cores <= FEW_CORES else THREADS_ON_MANY_CORES)
    if actors == "auto":
        one = PoolSize(1, _share(cores, fitting), 0.0, cores // fitting)
        return replace(one, actors=max(1, one.room(nodes)))
    count = actors if isinstance(actors, int) else actors.clip(len(nodes) * fitting)
    on_a_node = math.ceil(count / len(nodes))
    return PoolSize(count, _share(cores, on_a_node), 0.0, max(1, cores // on_a_node))


def _share(cores: float, count: int) -> float:
    """CPUs for each of `count` actors on a node, with room left for decoding; Ray wants whole ones above one."""
    share = (cores - 2 * DECODE_CPUS) / count
    return float(math.floor(share)) if share >= 1 else max(0.01, math.floor(100 * share) / 100)


def _times(have: float, each: float) -> int:
    """How often `each` goes into what there is."""
    return max(0, int(have / each + 1e-9))
