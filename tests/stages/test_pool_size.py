"""Pools are sized from what living nodes have, and never wait for what will not come."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stages.pool_size import DECODE_CPUS, PoolSize, pool_size


def cluster(*nodes: dict[str, float]) -> SimpleNamespace:
    """What `pool_size` asks of Ray, for machines that a test does not have."""
    alive = [{"Alive": True, "Resources": resources} for resources in nodes]
    return SimpleNamespace(nodes=lambda: [*alive, {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}}])


@pytest.mark.parametrize(
    ("nodes", "gpus", "actors", "expected"),
    [
        ([{"CPU": 1}], "auto", "auto", PoolSize(1, 0.5, 0, 1)),
        ([{"CPU": 2}], "auto", "auto", PoolSize(2, 0.75, 0, 1)),
        ([{"CPU": 2}], 0, 3, PoolSize(3, 0.5, 0, 1)),
        ([{"CPU": 8}], "auto", "auto", PoolSize(2, 3, 0, 4)),
        ([{"CPU": 8}], 0, 1, PoolSize(1, 7, 0, 8)),
        ([{"CPU": 8}, {"CPU": 8}], "auto", "auto", PoolSize(4, 3, 0, 4)),
        ([{"CPU": 0}, {"CPU": 16}], "auto", "auto", PoolSize(4, 3, 0, 4)),
        ([{"CPU": 16, "GPU": 4}], "auto", "auto", PoolSize(4, 1, 1, 1)),
        ([{"CPU": 16, "GPU": 1}], 0.5, "auto", PoolSize(2, 1, 0.5, 1)),
        ([{"CPU": 16, "GPU": 1}], 0.2, "auto", PoolSize(5, 1, 0.2, 1)),
        ([{"CPU": 2, "GPU": 2}], "auto", "auto", PoolSize(2, 0.75, 1, 1)),
        ([{"CPU": 16, "GPU": 4}], 0, "auto", PoolSize(4, 3, 0, 4)),
        ([{"CPU": 16, "GPU": 4}], "auto", 2, PoolSize(2, 1, 1, 1)),
        ([{"CPU": 4, "GPU": 1}, {"CPU": 4}], "auto", "auto", PoolSize(1, 1, 1, 1)),
    ],
)
def test_pools_are_sized_from_what_living_nodes_have(nodes, gpus, actors, expected):
    assert pool_size(cluster(*nodes), gpus, actors) == expected


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 8, 16, 64])
@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
def test_decoding_always_finds_room_beside_the_actors(cores: int, gpus: int):
    pool = pool_size(cluster({"CPU": cores, "GPU": gpus}), "auto", "auto")
    assert cores - pool.actors * pool.cpus >= DECODE_CPUS


@pytest.mark.parametrize(
    ("nodes", "gpus", "actors"),
    [([{"CPU": 4, "GPU": 1}], 2, "auto"), ([{"CPU": 4, "GPU": 1}], 1, 3), ([{"CPU": 4, "GPU": 1}] * 2, 2, 1)],
)
def test_a_cluster_that_is_too_small_is_told_instead_of_waited_for(nodes, gpus, actors):
    with pytest.raises(
        RuntimeError, match=r"resources\.encode asks for \d actors of \d GPUs; the cluster's nodes have"
    ):
        pool_size(cluster(*nodes), gpus, actors)


def test_a_cluster_without_cpus_is_told():
    with pytest.raises(RuntimeError, match="no node with CPUs"):
        pool_size(cluster({"CPU": 0, "GPU": 1}))
