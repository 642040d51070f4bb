"""How many actors a stage starts, what each asks of Ray, and how many threads torch gets in one.

Sized from what the cluster has, node by node; a part of a core always stays free for the tasks that read and decode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

DECODE_CPUS = 0.25
FEW_CORES = 4
"""Up to so many cores an actor with one thread each: as fast as one actor with all of them, whose threads wait for each
other (`python -m benchmarks.encode` tells which way the bare encoder prefers)."""
THREADS_ON_MANY_CORES = 4


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


def pool_size(ray: Any, gpus: float | Literal["auto"] = 0.0, actors: int | Literal["auto"] = "auto") -> PoolSize:
    """The pool for `gpus` GPUs an actor (auto: one where any node has one) and so many actors (auto: what fits).

    Raises RuntimeError, saying what was asked and what exists, for more than the cluster has.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if not nodes:
        raise RuntimeError("the cluster has no node with CPUs")
    each = (1.0 if any(node.get("GPU") for node in nodes) else 0.0) if gpus == "auto" else float(gpus)
    return _with_gpus(nodes, each, actors) if each else _without_gpus(nodes, actors)


def _with_gpus(nodes: list[dict[str, float]], each: float, actors: int | str) -> PoolSize:
    room = {number: int(node.get("GPU", 0.0) / each + 1e-9) for number, node in enumerate(nodes)}
    most = sum(room.values())
    asked = 1 if actors == "auto" else int(actors)
    if asked > most:
        have = ", ".join(f"{node.get('GPU', 0.0):g}" for node in nodes)
        raise RuntimeError(
            f"resources.encode asks for {asked} actors of {each:g} GPUs; the cluster's nodes have {have} GPUs. "
            "Set gpus: 0 to encode on CPUs."
        )
    cpus = min(_share(nodes[number]["CPU"], count) for number, count in room.items() if count)
    return PoolSize(most if actors == "auto" else asked, min(1.0, cpus), each, 1)


def _without_gpus(nodes: list[dict[str, float]], actors: int | str) -> PoolSize:
    cores = int(min(node["CPU"] for node in nodes)) or 1
    threads = 1 if cores <= FEW_CORES else THREADS_ON_MANY_CORES
    count = len(nodes) * (cores // threads) if actors == "auto" else int(actors)
    on_a_node = math.ceil(count / len(nodes))
    return PoolSize(count, _share(cores, on_a_node), 0.0, max(1, cores // on_a_node))


def _share(cores: float, count: int) -> float:
    """CPUs for each of `count` actors on a node, with room left for decoding; Ray wants whole ones above one."""
    share = (cores - 2 * DECODE_CPUS) / count
    return float(math.floor(share)) if share >= 1 else max(0.01, math.floor(100 * share) / 100)
