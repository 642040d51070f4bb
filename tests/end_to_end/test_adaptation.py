"""Few-shot and test-time methods as whole jobs: what each change costs, and that the rows are those they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from demo.captions import descriptor
from demo.dataset import MODEL_FOLDER
from demo.render import render
from demo.species import species_of
from pipeline.cluster import Cluster
from pipeline.feature_store import FeatureStore
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.results import collect_results
from pipeline.run import run_job
from storage.schemas import to_numpy

from .conftest import Silent, run

SPECIES = species_of("test_0")[:4]
QUERY, SUPPORT, VALIDATION = 3, 3, 2
SHOTS = "methods.*.shots"
ZERO_SHOT, STREAMS = 1, 2
COMPUTING = ("encode_images", "encode_text", "build_caches", "tune", "score", "test_time")
VARIANTS = 3 * 2
"""of three few-shot methods, at one shot and at two"""

JOB = """
dataset: {path: images, splits: {query: test, support: train, validation: val}}
model: {name: "local-dir:model"}
descriptors: {marks: {provider: file, path: descriptors.json}}
views:
  guided: {kind: guided, guide: clip, crops: 4, min_side: 0.3, max_side: 0.7, feature_crops: false}
  augmented: {crops: 2}
methods:
  - dnd
  - {name: tip, shots: [1, 2], seeds: [1], templates: general}
  - {name: dnd_tip, shots: [1, 2], seeds: [1]}
  - {name: tip_f, shots: [1, 2], seeds: [1], templates: general, epochs: 3}
  - {name: tda, templates: general}
  - dnd_tda
resources: {encode: {batch: 16, actors: 1}}
"""


def write_photographs(folder: Path, split: str, count: int, first: int = 0) -> None:
    for species in SPECIES:
        place = folder / "images" / split / species.name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            picture, _ = render(species, f"adaptation {split} {number}")
            picture.save(place / f"{number:03d}.jpg", quality=92)


@pytest.fixture(scope="module")
def adapted(ray: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A world in which the job has run, and what that computed. Copy it, do not change it."""
    folder = tmp_path_factory.mktemp("adapted")
    for split, count in (("test", QUERY), ("train", SUPPORT), ("val", VALIDATION)):
        write_photographs(folder, split, count)
    marks = {species.name: [descriptor(mark) for mark in species.marks] for species in SPECIES}
    (folder / "descriptors.json").write_text(json.dumps(marks))
    (folder / "job.yaml").write_text(JOB.replace("  - dnd\n", "  - {name: dnd, views: guided}\n"))
    text = (folder / "job.yaml").read_text()
    text = text.replace("{name: dnd_tip,", "{name: dnd_tip, views: guided,")
    (folder / "job.yaml").write_text(text.replace("  - dnd_tda", "  - {name: dnd_tda, views: guided}"))
    shutil.copytree(MODEL_FOLDER, folder / "model")
    return folder, run(folder)


@pytest.fixture
def world(adapted: tuple[Path, dict[str, int]], tmp_path: Path) -> Path:
    """A copy of that world of a test's own."""
    return Path(shutil.copytree(adapted[0], tmp_path / "world"))


def test_shots_alone_of_the_support_split_are_encoded_and_each_variant_is_tuned_and_scored(adapted):
    _, counts = adapted
    classes = len(SPECIES)
    encoded = classes * (QUERY + 2 + VALIDATION)
    assert counts["encode_images"] == 2 * encoded + classes * 2
    assert counts["build_caches"] == classes * 2
    assert counts["tune"] == VARIANTS
    assert counts["score"] == classes * QUERY * (ZERO_SHOT + VARIANTS)
    assert counts["test_time"] == classes * QUERY * STREAMS


def test_more_shots_cost_the_new_ones_and_fewer_cost_nothing(world):
    classes = len(SPECIES)
    fewer = run(world, f"{SHOTS}=[1]")
    assert {stage: fewer[stage] for stage in COMPUTING} == dict.fromkeys(COMPUTING, 0)
    more = run(world, f"{SHOTS}=[1, 2, 3]")
    assert more["encode_images"] == classes * 3
    assert more["build_caches"] == classes
    assert more["tune"] == 3
    assert more["score"] == classes * QUERY * 3
    assert more["test_time"] == 0
    cached = FeatureStore.open(world / "runs" / "job").to_arrow("cache", ["shot"])
    assert len(cached) == 3 * sum(len(species.marks) for species in SPECIES)


def test_another_seed_adds_the_images_that_no_other_has_drawn(world):
    plan = make_plan(load_job(world / "job.yaml", ["methods.*.seeds=[1, 5]"]))
    (cache,) = plan.of("build_caches").tables
    lacking = len(cache.missing)
    counts = run(world, "methods.dnd_tip.seeds=[1, 5]")
    assert counts["build_caches"] == lacking < len(SPECIES) * 2
    assert counts["tune"] == 2
    assert run(world, "methods.dnd_tip.seeds=[1, 5]")["build_caches"] == 0


def test_a_new_query_image_is_scored_alone_and_replays_the_streams(world):
    write_photographs(world, "test", 1, first=QUERY)
    counts, classes = run(world), len(SPECIES)
    assert (counts["build_caches"], counts["tune"]) == (0, 0)
    assert counts["score"] == classes * (ZERO_SHOT + VARIANTS)
    assert counts["test_time"] == classes * (QUERY + 1) * STREAMS


def test_a_stream_that_lost_rows_is_replayed_to_the_same_ones(world):
    tables = {table.name: table for table in make_plan(load_job(world / "job.yaml")).of("test_time").tables}
    before = {name: table.keeper.read(keys=table.wanted).drop_columns("seconds") for name, table in tables.items()}
    for table in tables.values():
        for shard in Path(table.keeper.folder).glob("*.arrow"):
            shard.unlink()
    assert run(world)["test_time"] == len(SPECIES) * QUERY * STREAMS
    for table in make_plan(load_job(world / "job.yaml")).of("test_time").tables:
        assert table.keeper.read(keys=table.wanted).drop_columns("seconds").equals(before[table.name])


def test_the_cache_holds_of_each_shot_and_description_the_crop_that_fits_best(adapted):
    folder, _ = adapted
    store = FeatureStore.open(folder / "runs" / "job")
    texts = {
        (row["class"], row["text"]): row["vector"] for row in store.to_arrow("descriptors", dtype="float32").to_pylist()
    }
    crops: dict[str, list[tuple[np.ndarray, list[int]]]] = {}
    for row in store.to_arrow("crops", dtype="float32", where="view = 'guided'").sort_by("number").to_pylist():
        crops.setdefault(row["image"], []).append((np.array(row["vector"]), row["box"]))
    cached = store.to_arrow("cache", dtype="float32").to_pylist()
    assert len(cached) == 2 * sum(len(species.marks) for species in SPECIES)
    for row in cached:
        cosines = [float(vector @ np.array(texts[row["class"], row["text"]])) for vector, _ in crops[row["image"]]]
        assert row["descriptor_similarity"] == pytest.approx(max(cosines), abs=2e-3)
        assert row["descriptor_similarity"] == pytest.approx(cosines[row["number"]], abs=2e-3)
        assert row["box"] == crops[row["image"]][row["number"]][1]
        assert row["image"].startswith(f"train/{row['class']}/")


def test_conditions_on_the_cache_name_view_sets_as_those_on_crops_do(adapted):
    store = FeatureStore.open(adapted[0] / "runs" / "job")
    assert len(store.to_arrow("cache", ["id"], where="view = 'guided' AND method = 'dnd_tip'")) == len(
        store.to_arrow("cache", ["id"])
    )


def test_another_job_of_the_store_shows_its_own_images_and_leaves_the_others(world):
    run(world)  # the copied images lie elsewhere, which table `images` says
    before = FeatureStore.open(world / "runs/job", "job").images()
    text = (world / "job.yaml").read_text()
    (world / "images/part").mkdir()
    shutil.copytree(world / "images/test" / SPECIES[0].name, world / "images/part" / SPECIES[0].name)
    text = text.split("methods:")[0].replace("query: test, support: train, validation: val", "query: part")
    (world / "part.yaml").write_text(f"name: part\nstore: runs/job\n{text}methods: [clip]\n")
    part = load_job(world / "part.yaml")
    run_job(part, Silent(), Cluster())
    assert len(FeatureStore.open(world / "runs/job", "part").images()) == QUERY
    assert FeatureStore.open(world / "runs/job", "job").images().equals(before)
    assert run(world)["project"] == 0


def test_results_have_a_row_a_number_of_shots(adapted):
    folder, _ = adapted
    rows = collect_results(make_plan(load_job(folder / "job.yaml")), "job")
    assert [(row["method"], row["name"], row["shots"]) for row in rows] == [
        ("dnd", "dnd", None),
        *((f"{name} ({shots})", name, shots) for name in ("tip", "dnd_tip", "tip_f") for shots in (1, 2)),
        ("tda", "tda", None),
        ("dnd_tda", "dnd_tda", None),
    ]
    few_shot = {row["method"]: row["accuracy"] for row in rows}
    assert few_shot["tip (2)"] > 0.5 > 0.25 == 1 / len(SPECIES), "labelled images tell what names do not"


def test_vectors_of_the_cache_are_those_of_the_crops(adapted):
    store = FeatureStore.open(adapted[0] / "runs" / "job")
    vectors = to_numpy(store.to_arrow("cache")["vector"], (-1,)).astype(np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
