"""Room for a stage's actors: found at once, waited for with words, or refused with what was asked and what exists."""

from __future__ import annotations

import pytest

from stages import staff
from stages.pool_size import ClusterTooSmall
from stages.staff import Waiting, find_room


@pytest.fixture
def clock(monkeypatch):
    """Time that only passes while something sleeps."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(staff, "time", clock)
    return clock


@pytest.mark.parametrize("minutes", [None, 0.0])
def test_what_a_ray_that_does_not_wait_lacks_is_refused_at_once(ray, minutes):
    with pytest.raises(ClusterTooSmall, match="asks for 1 actors of 2 GPUs; the cluster's nodes have 0 GPUs"):
        find_room(ray, "encode_images", gpus=2.0, minutes=minutes, tell=pytest.fail)


def test_gpus_auto_waits_for_nothing(ray):
    with pytest.raises(ClusterTooSmall):
        find_room(Fake([{"CPU": 4.0, "GPU": 1.0}]), "encode_images", gpus="auto", actors=2, minutes=5.0)


class Fake:
    """A cluster whose nodes join by and by, and the need that an autoscaler is shown."""

    def __init__(self, *looks: list[dict[str, float]]):
        self.looks = list(looks)
        self.shown: list[object] = []
        self.util = self

    def nodes(self) -> list[dict]:
        nodes = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [{"Alive": True, "Resources": resources} for resources in nodes]

    def placement_group(self, bundles: list[dict[str, float]]) -> object:
        self.shown.append(bundles)
        return bundles

    def remove_placement_group(self, group: object) -> None:
        self.shown.remove(group)
        self.shown.append("removed")


def test_gpus_that_join_are_waited_for_with_a_word_at_once_and_every_minute(clock):
    without, with_gpus = [{"CPU": 4.0}], [{"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}]
    cluster, told = Fake(*[without] * 40, with_gpus), []
    found = find_room(cluster, "encode_images", gpus=1.0, actors=2, minutes=10.0, tell=told.append)
    assert found.size.actors == 2
    assert len(told) == 2
    assert told[0].startswith("resources.encode asks for 2 actors of 1 GPUs; the cluster's nodes have 0 GPUs")
    assert "Waiting, for 10 minutes at most (resources.wait_minutes)" in told[0]
    assert "Waiting, for 9 minutes at most" in told[1]
    assert cluster.shown == ["removed"]


def test_gpus_that_never_come_end_the_stage_with_what_was_asked_and_what_exists(clock):
    cluster, told = Fake([{"CPU": 4.0}]), []
    with pytest.raises(RuntimeError, match=r"asks for 2 actors of 1 GPUs.* have 0 GPUs.* Waited 3 minutes") as found:
        find_room(cluster, "encode_images", gpus=1.0, actors=2, minutes=3.0, tell=told.append)
    assert str(found.value).startswith("encode_images: ")
    assert len(told) == 3
    assert cluster.shown == ["removed"]


def test_a_pending_need_is_seen_by_an_autoscaler_while_it_lasts_and_no_longer(ray):
    from ray.util import placement_group_table

    def pending() -> list[str]:
        table = placement_group_table()
        return [group["name"] for group in table.values() if group["state"] == "PENDING"]

    with staff._need_shown(ray, [{"CPU": 1.0, "GPU": 1.0}]):
        assert len(pending()) == 1
    assert pending() == []


def test_a_full_cluster_is_waited_for_and_then_told(clock):
    told = []
    waiting = Waiting("score", told.append, minutes=2.0, quiet=60.0)
    waiting.go_on("no actor found room")
    clock.sleep(61)
    waiting.go_on("no actor found room")
    assert len(told) == 1
    waiting.over()
    clock.sleep(500)
    waiting.go_on("no actor found room")
    clock.sleep(120)
    with pytest.raises(RuntimeError, match=r"score: no actor found room\. Waited 2 minutes"):
        waiting.go_on("no actor found room")
