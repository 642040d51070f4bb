"""Drivers, actors and nodes that are killed at random moments: every run ends in the state of an undisturbed one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import run, write_world
from .same_state import assert_same_state

ENTRY = Path(__file__).parents[2] / "run_pipeline.py"
IMAGES_A_SPECIES = 8
JOBS, KILLS_A_JOB = 2, 10
PATIENCE = 300.0
"""Seconds in which a job must go on after a kill."""


class Nodes:
    """A head node with drivers, and two nodes with workers, which can be killed and replaced."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.workers = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        self.cluster.wait_for_nodes()

    def kill_one(self, rng: random.Random) -> None:
        """Kill the processes of a worker node, and add another."""
        victim = self.workers.pop(rng.randrange(len(self.workers)))
        self.cluster.remove_node(victim, allow_graceful=False)
        self.workers.append(self.cluster.add_node(num_cpus=1))

    def actors_at_work(self) -> list[psutil.Process]:
        """Processes of actors that encode or score, by their pids."""
        found = []
        for node in [self.cluster.head_node, *self.workers]:
            for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children():
                try:
                    if any("_EncodeActor" in word or "_ScoreActor" in word for word in process.cmdline()[:1]):
                        found.append(process)
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
        return sorted(found, key=lambda process: process.pid)


class Disturbed:
    """A job whose driver is started again whenever it was killed.

    And once where it failed by itself: nodes of one machine share the folder into which Ray unpacks our code, so that
    the end of one can take it from under the workers of another. Nodes of their own machines do not.
    """

    def __init__(self, folder: Path, nodes: Nodes):
        self.folder, self.nodes = folder, nodes
        self.log, self.failures = folder / "driver.log", 0
        self.driver = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(ENTRY), "run", str(self.folder / "job.yaml")]
        command += ["--address", self.nodes.cluster.address]
        with self.log.open("a") as log:  # a pipe that nobody reads would fill, and stop it
            return subprocess.Popen(command, stderr=log, start_new_session=True)

    def progress(self) -> int:
        """Shards of features and predictions that are there."""
        return shards_in(self.folder)

    def wait_for(self, shards: int) -> bool:
        """Whether the job got so far before it ended."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.progress() >= shards:
                return True
            if self.driver.poll() == 0:
                return False
            if self.driver.poll() is not None:
                self._failed()
            time.sleep(0.02)
        raise AssertionError(f"nothing happened for {PATIENCE:.0f} s: {self.progress()} of {shards} shards")

    def kill(self, what: str, rng: random.Random) -> bool:
        """Kill the driver, one of its actors or a node; whether there was anything to kill."""
        if what == "node":
            self.nodes.kill_one(rng)
        elif what == "driver":
            self.driver.kill()
            self.driver.wait()
            self.driver = self._start()
        else:
            while not (
                actors := self.nodes.actors_at_work()
            ):  # a driver or node that died a moment ago took them along
                if self.driver.poll() is not None:
                    return False
                time.sleep(0.02)
            rng.choice(actors).send_signal(signal.SIGKILL)
        return True

    def _failed(self) -> None:
        self.failures += 1
        assert self.failures == 1, self.log.read_text()
        print(self.log.read_text().splitlines()[-1])
        self.driver = self._start()

    def end(self) -> None:
        while self.driver.wait(timeout=PATIENCE) != 0:
            self._failed()


def shards_in(folder: Path) -> int:
    return sum(1 for _ in (folder / "runs").glob("*/tables/*/*/*.arrow"))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    yield started
    started.cluster.shutdown()


@pytest.fixture(scope="module")
def slow_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with many crops and an image a batch, so that there is time to kill something."""
    folder = write_world(tmp_path_factory.mktemp("slow"), IMAGES_A_SPECIES)
    text = (folder / "job.yaml").read_text().replace("crops: 4,", "crops: 16,").replace("crops: 3", "crops: 8")
    (folder / "job.yaml").write_text(text.replace("batch: 4", "batch: 1"))
    return folder


@pytest.fixture(scope="module")
def undisturbed(ray: object, slow_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The job file of a run on one node that nobody disturbed, and its number of shards."""
    folder = Path(shutil.copytree(slow_world, tmp_path_factory.mktemp("undisturbed") / "world"))
    run(folder)
    return folder / "job.yaml", shards_in(folder)


def disturb(folder: Path, nodes: Nodes, seed: int, kills: int, shards: int) -> int:
    """Run a job under so many kills at moments drawn by `seed`; returns how many hit it before it was done."""
    rng = random.Random(seed)
    job, hits = Disturbed(folder, nodes), 0
    # Three at a time: what strikes while a job recovers is the harder case, and every recovery costs many seconds.
    moments = sorted(3 * rng.sample(range(1, round(0.95 * shards)), -(-kills // 3)))[:kills]
    # Most are actors, which die most often in life, too; every job loses its driver twice and a node.
    victims = ["driver", "driver", "node", *rng.choices(["actor", "node"], [5, 1], k=kills - 3)]
    rng.shuffle(victims)
    try:
        for moment, what in zip(moments, victims, strict=True):
            hit = job.wait_for(moment) and job.kill(what, rng)
            print(f"seed {seed}: {what} at {job.progress()} of {shards} shards{'' if hit else ': came too late'}")
            hits += hit
        job.end()
    finally:
        job.driver.kill()
    return hits


@pytest.mark.timeout(1200)
def test_kills_at_random_moments_leave_the_state_of_an_undisturbed_run(undisturbed, nodes, slow_world, tmp_path):
    reference, shards = undisturbed
    first, hits = int(os.environ.get("FIELDMARK_SEED", random.randrange(10**6))), 0
    for number in range(JOBS):
        folder = Path(shutil.copytree(slow_world, tmp_path / str(number)))
        hits += disturb(folder, nodes, first + number, KILLS_A_JOB + 1, shards)
        assert_same_state(reference, folder / "job.yaml")
    assert hits >= JOBS * KILLS_A_JOB, "too many kills came when all was done"


@pytest.mark.soak
@pytest.mark.timeout(8 * 3600)
@pytest.mark.parametrize("seed", range(100))
def test_a_night_of_kills(undisturbed, nodes, slow_world, tmp_path, seed):
    reference, shards = undisturbed
    folder = Path(shutil.copytree(slow_world, tmp_path / "world"))
    disturb(folder, nodes, seed, 12, shards)
    assert_same_state(reference, folder / "job.yaml")
