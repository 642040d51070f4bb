"""The one mechanism on real jobs: what is there is never computed again, and the least that changed is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.feature_store import FeatureStore, StoreError
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import stored_predictions
from pipeline.results import collect_results
from pipeline.run import Selection

from .conftest import IMAGES_A_SPECIES, SPECIES, run, write_world

pytestmark = pytest.mark.usefixtures("ray")

IMAGES = len(SPECIES) * IMAGES_A_SPECIES
METHODS = 5
ENCODED_TABLES = 3
NOTHING = dict.fromkeys(("describe", "encode_text", "encode_images", "score", "evaluate", "project"), 0)


@pytest.fixture(scope="module")
def computed(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world with its job run once. Copy it, do not change it."""
    folder = Path(shutil.copytree(rendered, tmp_path_factory.mktemp("computed") / "world"))
    counts = run(folder)
    assert counts["encode_images"] == IMAGES * ENCODED_TABLES
    assert counts["score"] == IMAGES * METHODS
    return folder


@pytest.fixture
def done(computed: Path, tmp_path: Path) -> Path:
    """A copy of the computed world, times of files kept."""
    return Path(shutil.copytree(computed, tmp_path / "done"))


def predictions(folder: Path) -> list[dict]:
    return stored_predictions(make_plan(load_job(folder / "job.yaml")), (), top_k=3)


def test_a_second_run_computes_nothing_and_loads_neither_ray_nor_torch_nor_lancedb(computed: Path):
    script = (
        "import sys; sys.argv = ['fieldmark', 'run', sys.argv[1], '--json']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "loaded = {'ray', 'torch', 'lancedb', 'open_clip'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(computed / "job.yaml")], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    stages = json.loads(answer.stdout)["stages"]
    assert {stage["stage"]: stage["computed"] for stage in stages} == NOTHING


def test_a_copied_data_set_keeps_its_results(done: Path):
    """The fixture is itself a copy, times kept: only the images' addresses are projected anew."""
    assert run(done) == NOTHING | {"project": 1}
    assert run(done) == NOTHING


def test_adding_ten_images_encodes_ten(done: Path):
    write_world(done, images_a_species=2, first=IMAGES_A_SPECIES)
    added = sorted((done / "images").rglob("*.jpg"), key=lambda path: path.name)[IMAGES:]
    for path in added[10:]:
        path.unlink()
    counts = run(done)
    assert counts["encode_images"] == 10 * ENCODED_TABLES
    assert counts["score"] == 10 * METHODS
    assert counts["encode_text"] == counts["describe"] == 0


def test_a_changed_image_is_encoded_again_and_gets_the_same_boxes(done: Path):
    before = boxes(done)
    path = sorted((done / "images").rglob("*.jpg"))[0]
    os.utime(path, ns=(1, 1))
    assert run(done)["encode_images"] == ENCODED_TABLES
    assert boxes(done) == before


def boxes(folder: Path) -> dict[str, list[int]]:
    """Image id -> its random boxes."""
    plan = make_plan(load_job(folder / "job.yaml"))
    table = next(table for table in plan.of("encode_images").tables if table.name == "views.random")
    rows = table.keeper.read(keys=list(table.wanted), columns=["key", "boxes"]).to_pylist()
    return {row["key"].rsplit("@", 1)[0]: row["boxes"] for row in rows}


def test_a_deleted_image_drops_out_of_results_and_queries(done: Path):
    path = sorted((done / "images").rglob("*.jpg"))[0]
    identity = path.relative_to(done / "images").as_posix()
    path.unlink()
    counts = run(done)
    assert counts["encode_images"] == counts["score"] == 0
    assert identity not in {row["image"] for row in predictions(done)}
    job = load_job(done / "job.yaml")
    hits = FeatureStore.open(job.store).search("A bird with a red beak.", k=1000)
    assert hits
    assert identity not in {hit["image"] for hit in hits}
    assert collect_results(make_plan(job), "job")[0]["images"] == IMAGES - 1


def test_a_changed_view_setting_starts_a_new_table_and_keeps_the_old(done: Path):
    run(done)
    counts = run(done, "views.random.crops=2")
    assert counts["encode_images"] == IMAGES
    assert counts["score"] == IMAGES * 2  # crops_mean and dnd read it
    assert run(done) == NOTHING, "going back to the old setting costs nothing"


def test_going_back_to_old_settings_points_the_store_at_the_old_database(done: Path):
    run(done)
    store = load_job(done / "job.yaml").store
    before = FeatureStore.open(store).database
    run(done, "views.random.crops=2")
    assert FeatureStore.open(store).database != before
    run(done)
    assert FeatureStore.open(store).database == before


def test_a_new_view_set_encodes_only_itself(done: Path):
    assert run(done, "views.small={kind: random, crops: 2, max_area: 0.3}")["encode_images"] == IMAGES


def test_a_renamed_view_set_costs_nothing_but_its_projection(done: Path):
    job = (done / "job.yaml").read_text().replace("  random:", "  scattered:")
    (done / "job.yaml").write_text(job)
    counts = run(done)
    assert counts["encode_images"] == counts["score"] == 0


def test_a_new_method_computes_only_itself(done: Path):
    methods = "[clip, cupl, crops_mean, dnd, abs, {name: dnd, label: sharp, epsilon: 0.02}]"
    counts = run(done, f"methods={methods}")
    assert counts["encode_images"] == counts["encode_text"] == 0
    assert counts["score"] == IMAGES
    assert counts["evaluate"] == 1 + 6 * 5 // 2, "its own row, and the comparisons of all six"


def test_a_changed_descriptor_encodes_that_text_alone(done: Path):
    path = done / "descriptors.json"
    marks = json.loads(path.read_text())
    marks[SPECIES[0].name][0] = "A bird with a long white beak, I think."
    path.write_text(json.dumps(marks))
    counts = run(done)
    assert counts["describe"] == 1
    assert counts["encode_text"] == 1
    assert counts["encode_images"] == 0
    assert counts["score"] == IMAGES * (METHODS - 1), "all that read descriptors, whose set has changed"


def test_several_seeds_draw_their_own_crops_and_share_the_rest(done: Path):
    counts = run(done, "seed=[0, 1]")
    assert counts["encode_images"] == IMAGES * 2, "the second seed of two view sets"
    assert counts["score"] == IMAGES * 3, "the three methods that read crops"
    (dnd,) = [
        row
        for row in collect_results(make_plan(load_job(done / "job.yaml", ["seed=[0, 1]"])), "job")
        if row["method"] == "dnd"
    ]
    assert dnd["seeds"] == [0, 1]
    assert dnd["sd"] is not None


def test_forcing_a_stage_computes_its_rows_again(done: Path):
    counts = run(done, selection=Selection(force="score"))
    assert counts["score"] == IMAGES * METHODS
    assert counts["encode_images"] == 0


def test_crops_and_predictions_do_not_depend_on_the_batch(done: Path, world: Path):
    run(world, "resources.encode.batch=7")
    assert boxes(world) == boxes(done)
    expected = {(row["image"], row["method"]): row for row in predictions(done)}
    for row in predictions(world):
        other = expected[row["image"], row["method"]]
        assert row["class"] == other["class"] or row["margin"] < 1e-2


def test_a_query_after_a_change_answers_from_the_last_run_and_of_other_settings_not_at_all(done: Path):
    sorted((done / "images").rglob("*.jpg"))[0].unlink()
    job = load_job(done / "job.yaml")
    store, up_to_date = FeatureStore.of_plan(make_plan(job), job)
    assert not up_to_date
    assert store.search("A bird with a red beak.", k=1)
    other = load_job(done / "job.yaml", ["views.random.crops=2"])
    with pytest.raises(StoreError, match="not run to the end"):
        FeatureStore.of_plan(make_plan(other), other)
