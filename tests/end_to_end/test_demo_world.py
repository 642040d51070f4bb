"""The demo as a newcomer runs it, with fewer pictures: order of methods, answers, and a second time for free."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.feature_store import FeatureStore
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import stored_predictions
from pipeline.results import collect_results

IMAGES = 6
"""Of a species; the demo itself renders 25."""
COMMAND = [sys.executable, str(Path(__file__).parents[2] / "run_pipeline.py")]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder the demo left, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    done = call("demo", str(folder), "--images", str(IMAGES))
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture(scope="module")
def accuracy(demo: tuple[Path, str]) -> dict[str, float]:
    job = load_job(demo[0] / "job.yaml")
    rows = collect_results(make_plan(job), job.name)
    assert {row["images"] for row in rows} == {32 * IMAGES}
    return {row["method"]: row["accuracy"] for row in rows}


def test_crops_matched_to_descriptors_beat_the_whole_image_by_a_wide_margin(accuracy: dict[str, float]):
    assert accuracy["dnd"] > accuracy["cupl"] + 0.08
    assert accuracy["abs"] > accuracy["cupl"] + 0.20
    assert accuracy["abs"] > accuracy["dnd"] + 0.05, "guided crops find the bird"


def test_invented_names_mean_nothing(accuracy: dict[str, float]):
    assert accuracy["clip"] < 0.12
    assert accuracy["cupl"] > 0.25


def test_the_demo_shows_what_it_promises(demo: tuple[Path, str]):
    folder, said = demo
    for words in (
        "Accuracy",
        "interval",
        "ms per",
        "Some predictions",
        "Crops most like",
        str(folder / "job.yaml"),
    ):
        assert words in said
    assert "at chance" in said


def test_the_demo_renders_and_computes_nothing_twice(demo: tuple[Path, str]):
    folder, _ = demo
    before = {path: path.stat().st_mtime_ns for path in (folder / "images").rglob("*.jpg")}
    again = call("demo", str(folder), "--images", str(IMAGES))
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (folder / "images").rglob("*.jpg")} == before
    assert "encode_images  nothing to do" in again.stderr


def test_probabilities_sum_to_one_for_every_method(demo: tuple[Path, str]):
    plan = make_plan(load_job(demo[0] / "job.yaml"))
    for row in stored_predictions(plan, (), top_k=1000)[::50]:
        assert sum(best["probability"] for best in row["top"]) == pytest.approx(1, abs=1e-4)


def test_machine_readable_answers_are_one_json_document(demo: tuple[Path, str]):
    job = str(demo[0] / "job.yaml")
    results = json.loads(call("results", job, "--json").stdout)
    assert {"method", "split", "accuracy", "low", "high", "images", "seconds_per_image"} <= set(results["methods"][0])
    status = json.loads(call("status", job, "--json").stdout)
    assert all(stage["missing"] == 0 for stage in status["stages"])
    assert status["rejects"] == 0
    hits = json.loads(call("query", job, "A bird with a long red beak.", "-k", "3", "--json").stdout)["hits"]
    assert len(hits) == 3
    assert {"image", "class", "box", "similarity"} <= set(hits[0])
    run = json.loads(call("run", job, "--json").stdout)
    assert {"stage", "computed", "reused", "rejected", "seconds"} <= set(run["stages"][0])


def test_queries_find_birds_that_have_the_mark(demo: tuple[Path, str]):
    """Over many marks: some, such as a white beak before a bright sky, are hard for this model."""
    from demo.captions import descriptor
    from demo.species import species_of

    store = FeatureStore.open(load_job(demo[0] / "job.yaml").store)
    marks = {species.name: {descriptor(mark) for mark in species.marks} for species in species_of("test_0")}
    texts = sorted(set().union(*marks.values()))[::3]
    found = by_chance = 0.0
    for text in texts:
        having = {name for name, sentences in marks.items() if text in sentences}
        hits = store.search(text, k=2 * IMAGES)
        found += sum(hit["class"] in having for hit in hits) / len(hits) / len(texts)
        by_chance += len(having) / len(marks) / len(texts)
    assert found > 0.3
    assert found > 3 * by_chance
