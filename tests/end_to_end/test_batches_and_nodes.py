"""The same rows whatever the batch, wherever the actors, and whatever becomes of the nodes under them.

Boxes are equal, features within one step of fp16, predictions equal.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from rich.console import Console

from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.run import Selection, run_job
from pipeline.watch import LogWatcher

from .same_state import assert_same_features, assert_same_predictions, feature_rows, predictions

MARKS = {"jay": ["a blue crest", "a collar"], "wren": ["a short tail"], "owl": ["a round face", "soft wings", "a hook"]}
REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = [(40, 40), (61, 33), (30, 90), (500, 375), (32, 32), (1, 50), (20, 16), (64, 48), (90, 30)] + 27 * [(24, 24)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, picture) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate(SIZES):
        Image.fromarray(picture(f"{number}", *size)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def write(photos, tiny_model, write_job):
    """`write(folder, batch)` -> a job file with random and guided views of those pictures."""

    def job(folder: Path, batch: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in MARKS))
        (folder / "marks.json").write_text(json.dumps(MARKS))
        return write_job(
            folder,
            dataset={"path": str(photos), "classes": "classes.txt"},
            model={"name": f"local-dir:{tiny_model}"},
            views={
                "random": {"kind": "random", "crops": 3},
                "guided": {"kind": "guided", "guide": "clip", "crops": 5},
                "augmented": {"kind": "augmented", "crops": 2},
            },
            descriptors={"marks": {"provider": "file", "path": "marks.json"}},
            methods=["dnd", "abs"],
            resources={"encode": {"gpus": 0, "batch": batch, "actors": 1}},
        )

    return job


@pytest.fixture(scope="module")
def on_this_machine(ray, tmp_path_factory, write) -> Path:
    """The job file of a run that nothing disturbed: one actor, all pictures in one batch."""
    job = write(tmp_path_factory.mktemp("here"), 64)
    run_job(load_job(job), LogWatcher(Console(file=io.StringIO())), Cluster(), Selection(until="score"))
    return job


class Nodes:
    """A head that runs no tasks, with a dashboard, and a node of one CPU beside it."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayNodes

        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            port, agents = one.getsockname()[1], other.getsockname()[1]
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port, "dashboard_agent_listen_port": agents}
        head["_system_config"] = {"health_check_period_ms": 1000}  # a death is noticed sooner
        self.nodes = RayNodes(initialize_head=True, head_node_args=head)
        self.address, self.dashboard = self.nodes.address, f"http://127.0.0.1:{port}"

    def add(self) -> Any:
        return self.nodes.add_node(num_cpus=1)

    def keep_one(self) -> None:
        """One node beside the head, whatever was added or killed, and the head knows of no other."""
        while len(self.nodes.worker_nodes) > 1:
            self.kill(next(iter(self.nodes.worker_nodes)))
        self.first = next(iter(self.nodes.worker_nodes), None) or self.add()
        self.nodes.wait_for_nodes()

    def actors_on(self, node: Any) -> list[psutil.Process]:
        """Encoding actors among the processes of a node."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [child for child in raylet.children() if any("_EncodeActor" in part for part in command_line(child))]

    def kill(self, node: Any) -> None:
        """Take the node away as a power cut would: the raylet and what it started, at once."""
        raylet = node.all_processes["raylet"][0].process
        family = psutil.Process(raylet.pid).children(recursive=True)
        for process in (raylet, *family):
            process.kill()
        self.nodes.remove_node(node, allow_graceful=False)


def command_line(process: psutil.Process) -> list[str]:
    """Its words; none of one that has just died."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


@pytest.fixture(scope="module")
def cluster(ray: Any) -> Iterator[Nodes]:
    cluster = Nodes()  # after the local Ray: one that starts later would join these
    yield cluster
    cluster.nodes.shutdown()


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """The cluster that the tests share, with one node that works."""
    cluster.keep_one()
    return cluster


def start(cluster: Nodes, job: Path, *more: str) -> subprocess.Popen[str]:
    """A run of encode_images on the cluster, from a folder without our code."""
    command = [sys.executable, str(REPOSITORY / "run_pipeline.py"), "run", str(job), "--only", "encode_images"]
    command += ["--address", cluster.address, *more]
    return subprocess.Popen(command, cwd=job.parent, stderr=subprocess.PIPE, text=True)


def wait_until(happened: Callable[[], bool], driver: subprocess.Popen[str], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert driver.poll() is None, driver.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_node_that_joins_gets_work_and_one_that_dies_loses_nothing(on_this_machine, nodes, tmp_path, write):
    job = write(tmp_path, 1)
    almost_all = len(SIZES) - 2
    driver = start(nodes, job, "--set", "resources.encode.actors=auto")

    def encoded() -> int:
        return min(len(list(tmp_path.glob(f"runs/*/tables/encode_images/{folder}/*.arrow"))) for folder in folders)

    folders = [Path(t.keeper.folder).name for t in make_plan(load_job(job)).of("encode_images").tables]
    try:
        wait_until(lambda: encoded() >= 1, driver)
        (actor,) = nodes.actors_on(nodes.first)
        actor.send_signal(signal.SIGSTOP)  # it keeps what it has in hand and does no more
        assert encoded() < almost_all
        second = nodes.add()
        wait_until(lambda: encoded() >= almost_all, driver)  # by an actor that came for the second node
        nodes.kill(nodes.first)
        wait_until(lambda: bool(nodes.actors_on(second)), driver)
        _, said = driver.communicate(timeout=240)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    assert "encode_images: lost a node" in said
    assert_same_features(feature_rows(on_this_machine), feature_rows(job))


PROBE = """
import json, os, subprocess, sys
from pipeline.cluster import Cluster
from pipeline.cluster_error import ClusterError

cluster = Cluster(sys.argv[1], wait=0.0)
ray = cluster.ray()

def modules():
    import prompts, stages, storage
    return [module.__file__ for module in (prompts, stages, storage)]

found = {"modules": ray.get(ray.remote(modules).remote()), "said": {}}
for name, paths in json.loads(sys.argv[2]).items():
    try:
        found["said"][name] = cluster.check_shared(paths)
    except ClusterError as error:
        found["said"][name] = str(error)
found |= {"described": cluster.describe(), "dashboard": cluster.dashboard}

# As if the cluster ran another Ray: what a driver compares with its own versions.
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

kept = json.loads(_internal_kv_get("CLUSTER_METADATA", namespace="cluster"))
other = json.dumps(kept | {"ray_version": "2.0.0"})
_internal_kv_put("CLUSTER_METADATA", other, overwrite=True, namespace="cluster")
try:
    join = "import sys; from pipeline.cluster import Cluster; Cluster(sys.argv[1]).ray()"
    joined = subprocess.run([sys.executable, "-c", join, sys.argv[1]], capture_output=True, text=True, timeout=120)
    found["other_version"] = joined.stderr.splitlines()[-1]
finally:
    _internal_kv_put("CLUSTER_METADATA", json.dumps(kept), overwrite=True, namespace="cluster")
cluster.stop()
print(json.dumps(found))
"""


def test_workers_import_what_was_sent_and_paths_that_they_do_not_see_are_refused(nodes, tmp_path):
    (tmp_path / "photos").mkdir()
    here = "/proc/self/cwd"  # another folder in every process: what no two nodes share
    asked = {
        "shared": {"store": str(tmp_path / "runs"), "dataset.path": str(tmp_path / "photos")},
        "elsewhere": {"store": "s3://bucket/runs", "dataset.path": "gs://bucket/photos"},
        "store": {"store": f"{here}/runs"},
        "images": {"store": str(tmp_path / "runs"), "dataset.path": f"{here}/photos"},
        "weights": {"model.weights": f"{here}/photos/weights.pt"},
    }
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", PROBE, nodes.address, json.dumps(asked)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=True
    )
    found = json.loads(done.stdout)
    assert all("py_modules_files" in Path(place).parts for place in found["modules"])
    assert found["said"]["shared"] is None
    assert found["said"]["elsewhere"] is None
    for name, key in (("store", "store"), ("images", "dataset.path"), ("weights", "model.weights")):
        assert found["said"][name].startswith(f"{key}: node "), found["said"]
        assert f"does not see {asked[name][key]}" in found["said"][name]
        assert "a folder that all of them share" in found["said"][name]
    assert os.listdir(tmp_path / "runs") == []
    assert found["described"] == {"nodes": 2, "cpus": 1.0, "gpus": 0.0, "address": nodes.address}
    assert found["dashboard"] == nodes.dashboard
    assert "ClusterError: the cluster at" in found["other_version"]
    assert "is of another Ray or Python" in found["other_version"]
    assert "Ray: 2.0.0" in found["other_version"]


def test_a_request_that_cannot_be_met_says_what_was_asked_and_what_exists(nodes, tmp_path, write):
    job = write(tmp_path, 8)
    asked = ["--set", "resources.wait_minutes=0", "--set", "resources.encode.gpus=2"]
    driver = start(nodes, job, *asked)
    _, said = driver.communicate(timeout=240)
    assert driver.returncode == 1
    assert "resources.encode asks for 1 actors of 2 GPUs; the cluster's nodes have 0 GPUs" in said
    assert "Traceback" not in said


def test_a_job_that_is_submitted_to_three_nodes_predicts_the_same(on_this_machine, nodes, tmp_path, write):
    assert len(SIZES) % 7 == 1
    job = write(tmp_path / "job", 7)  # its last batch is a single picture
    nodes.add()
    code = tmp_path / "code"
    for name in ("pipeline", "stages", "prompts", "storage", "demo"):
        shutil.copytree(REPOSITORY / name, code / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(REPOSITORY / "run_pipeline.py", code)
    command = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", nodes.dashboard]
    command += ["--working-dir", str(code), "--", sys.executable, "run_pipeline.py", "run", str(job)]
    command += ["--until", "score", "--set", "resources.encode.actors={min: 1, max: 2}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_features(feature_rows(on_this_machine), feature_rows(job))
    assert_same_predictions(predictions(on_this_machine), predictions(job))
