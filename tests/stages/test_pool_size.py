"""Pools are sized from what living nodes have, follow nodes that come and go, and say what a cluster lacks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from stages.pool_size import DECODE_CPUS, ClusterTooSmall, PoolSize, living_nodes, pool_size, wanted_actors
from stages.settings import ActorRange, EncodeResources


@pytest.mark.parametrize(
    ("nodes", "gpus", "actors", "expected"),
    [
        ([{"CPU": 1}], "auto", "auto", PoolSize(1, 0.5, 0, 1)),
        ([{"CPU": 2}], "auto", "auto", PoolSize(2, 0.75, 0, 1)),
        ([{"CPU": 2}], 0, 3, PoolSize(3, 0.5, 0, 1)),
        ([{"CPU": 2}], 0, ActorRange(min=1, max=8), PoolSize(2, 0.75, 0, 1)),
        ([{"CPU": 2}], 0, ActorRange(min=3, max=8), PoolSize(3, 0.5, 0, 1)),
        ([{"CPU": 8}], "auto", "auto", PoolSize(2, 3, 0, 4)),
        ([{"CPU": 8}], 0, 1, PoolSize(1, 7, 0, 8)),
        ([{"CPU": 8}, {"CPU": 8}], "auto", "auto", PoolSize(4, 3, 0, 4)),
        ([{"CPU": 2}, {"CPU": 64}], "auto", "auto", PoolSize(16, 3, 0, 4)),
        ([{"CPU": 8}, {"CPU": 64}], "auto", "auto", PoolSize(18, 3, 0, 4)),
        ([{"CPU": 1}, {"CPU": 4}], "auto", "auto", PoolSize(5, 0.5, 0, 1)),
        ([{"CPU": 2}, {"CPU": 64}], "auto", 2, PoolSize(2, 1, 0, 2)),
        ([{"CPU": 16, "GPU": 4}], "auto", "auto", PoolSize(4, 1, 1, 1)),
        ([{"CPU": 16, "GPU": 4}], "auto", ActorRange(min=1, max=2), PoolSize(2, 1, 1, 1)),
        ([{"CPU": 16, "GPU": 1}], 0.5, "auto", PoolSize(2, 1, 0.5, 1)),
        ([{"CPU": 16, "GPU": 1}], 0.2, "auto", PoolSize(5, 1, 0.2, 1)),
        ([{"CPU": 2, "GPU": 2}], "auto", "auto", PoolSize(2, 0.75, 1, 1)),
        ([{"CPU": 16, "GPU": 4}], 0, "auto", PoolSize(4, 3, 0, 4)),
        ([{"CPU": 16, "GPU": 4}], "auto", 2, PoolSize(2, 1, 1, 1)),
        ([{"CPU": 4, "GPU": 1}, {"CPU": 4}], "auto", "auto", PoolSize(1, 1, 1, 1)),
    ],
)
def test_pools_are_sized_from_what_nodes_have(nodes, gpus, actors, expected):
    assert pool_size(nodes, gpus, actors) == expected


def test_dead_nodes_and_those_that_run_no_tasks_are_not_counted():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 0}},
        {"Alive": True, "Resources": {"CPU": 16}},
        {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}},
    ]
    assert living_nodes(SimpleNamespace(nodes=lambda: nodes)) == [{"CPU": 16}]


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 8, 16, 64])
@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
def test_decoding_always_finds_room_beside_the_actors_and_these_all_find_room(cores: int, gpus: int):
    nodes = [{"CPU": cores, "GPU": gpus}] * 2
    pool = pool_size(nodes)
    assert 2 * cores - pool.actors * pool.cpus >= 2 * DECODE_CPUS
    assert pool.room(nodes) == pool.actors


@pytest.mark.parametrize(
    ("actors", "after", "may_grow", "wanted"),
    [
        ("auto", [{"CPU": 4}, {"CPU": 4}], True, 8),
        ("auto", [{"CPU": 4}, {"CPU": 1}], True, 4),
        (2, [{"CPU": 4}, {"CPU": 4}], True, 2),
        (ActorRange(max=6), [{"CPU": 4}, {"CPU": 4}], False, 6),
        (ActorRange(max=6), [{"CPU": 4}], False, 4),
        (ActorRange(max=6), [{"CPU": 4}], True, 6),
        (ActorRange(min=5), [{"CPU": 4}], True, 5),
        (ActorRange(min=5), [{"CPU": 4}] * 2, True, 8),
    ],
)
def test_how_many_are_wanted_follows_nodes_that_join_and_go(actors, after, may_grow, wanted):
    pool = pool_size([{"CPU": 4}])
    assert wanted_actors(pool, actors, after, may_grow=may_grow) == wanted


@pytest.mark.parametrize(
    ("nodes", "gpus", "actors", "lacking"),
    [
        ([{"CPU": 4, "GPU": 1}], 2, "auto", [{"CPU": 1.0, "GPU": 2.0}]),
        ([{"CPU": 4, "GPU": 1}], 1, 3, [{"CPU": 1.0, "GPU": 1.0}] * 3),
        ([{"CPU": 4, "GPU": 1}] * 2, 2, ActorRange(min=1, max=8), [{"CPU": 1.0, "GPU": 2.0}]),
    ],
)
def test_a_cluster_that_is_too_small_is_told_with_what_it_lacks(nodes, gpus, actors, lacking):
    with pytest.raises(
        ClusterTooSmall, match=r"resources\.encode asks for \d actors of \d GPUs; the cluster's nodes have"
    ) as found:
        pool_size(nodes, gpus, actors)
    assert found.value.lacking == lacking


def test_a_job_file_gives_a_number_of_actors_or_a_range():
    def actors(given):
        return EncodeResources.model_validate({"actors": given}).actors

    assert (actors("auto"), actors(3)) == ("auto", 3)
    assert actors({"max": 4}) == ActorRange(min=1, max=4)
    assert actors({"min": 2}) == ActorRange(min=2, max=None)
    with pytest.raises(ValidationError, match=r"actors\.min \(3\) must not exceed actors\.max \(2\)"):
        actors({"min": 3, "max": 2})


def test_a_cluster_without_cpus_is_told():
    with pytest.raises(ClusterTooSmall, match="no node with CPUs"):
        pool_size([])
