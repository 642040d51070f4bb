"""The same rows whatever the batch and wherever the actors: boxes equal, features within one step of fp16."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.run import Selection, run_job
from pipeline.watch import LogWatcher
from storage.schemas import to_numpy

MARKS = {"jay": ["a blue crest", "a collar"], "wren": ["a short tail"], "owl": ["a round face", "soft wings", "a hook"]}
SIZES = [(40, 40), (61, 33), (30, 90), (500, 375), (32, 32), (1, 50), (20, 16), (64, 48), (90, 30)]


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
            methods=["clip", "waffle", "dnd", "abs"],
            resources={"encode": {"gpus": 0, "batch": batch, "actors": 2}},
        )

    return job


def rows(job: Path) -> dict[str, dict[str, np.ndarray]]:
    """Table -> column -> array, in the order of the wanted keys."""
    found = {}
    for table in make_plan(load_job(job)).of("encode_images").tables:
        assert table.complete
        stored = table.keeper.read(list(table.wanted))
        columns = [name for name in stored.column_names if name.endswith(("boxes", "windows", "vectors", "norms"))]
        found[table.name] = {name: to_numpy(stored[name], (-1,)) for name in columns}
    return found


def assert_same_rows(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for table, columns in one.items():
        for name, values in columns.items():
            if values.dtype == np.float16:
                step = np.maximum(np.spacing(np.abs(values)), np.spacing(np.float16(2**-6))).astype(np.float32)
                difference = np.abs(values.astype(np.float32) - other[table][name].astype(np.float32))
                assert (difference <= step).all(), (table, name, difference.max())
            elif values.dtype == np.int32:
                np.testing.assert_array_equal(values, other[table][name])
            else:
                np.testing.assert_allclose(values, other[table][name], rtol=1e-4)


@pytest.fixture(scope="module")
def one_by_one(ray, tmp_path_factory, write) -> dict:
    return encode(write(tmp_path_factory.mktemp("one"), 1))


def encode(job: Path) -> dict:
    run_job(load_job(job), LogWatcher(Console(file=io.StringIO())), Cluster(), Selection(only="encode_images"))
    return rows(job)


@pytest.mark.parametrize("batch", [7, 64])
def test_a_batch_gives_what_one_image_at_a_time_gives(one_by_one, ray, tmp_path, write, batch):
    assert_same_rows(one_by_one, encode(write(tmp_path, batch)))


def predictions(job: Path) -> dict[str, list[dict]]:
    """Method -> its rows, in the order of the wanted keys."""
    tables = make_plan(load_job(job)).of("score").tables
    return {table.name: table.keeper.read(list(table.wanted)).to_pylist() for table in tables}


def assert_same_predictions(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for table, expected in one.items():
        for row, found in zip(expected, other[table], strict=True):
            assert row["key"] == found["key"]
            assert row["classes"][0] == found["classes"][0] or row["margin"] < 1e-4, table
            assert found["logits"] == pytest.approx(row["logits"], rel=1e-3, abs=1e-3)


@pytest.fixture(scope="module")
def on_this_machine(ray, tmp_path_factory, write) -> Path:
    job = write(tmp_path_factory.mktemp("here"), 64)
    run_job(load_job(job), LogWatcher(Console(file=io.StringIO())), Cluster(), Selection(until="score"))
    return job


@pytest.mark.parametrize("count", [2, 3])
def test_two_and_three_nodes_give_the_rows_and_predictions_of_one(on_this_machine, tmp_path, write, count):
    from ray.cluster_utils import Cluster as Nodes

    job = write(tmp_path, 2)
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        entry = Path(__file__).resolve().parents[2] / "run_pipeline.py"
        actors = f"resources.encode.actors={count}"
        command = [sys.executable, entry, "run", job, "--until", "score", "--set", actors, "--address", nodes.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        nodes.shutdown()
    assert_same_rows(rows(on_this_machine), rows(job))
    assert_same_predictions(predictions(on_this_machine), predictions(job))
