"""A store that grows: what changes is said beforehand, the least is computed, and a fresh store would hold the same.

The tests of this module work on one store, one change after another; each counts from what it finds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.feature_store import FeatureStore, StoreError
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import stored_predictions
from pipeline.results import collect_results
from pipeline.run import Selection
from pipeline.show import status_rows
from pipeline.why import Why
from storage import files
from storage.shards import ShardTable

from .conftest import run

pytestmark = pytest.mark.usefixtures("ray")

MARKS = {
    "blue jay": ["a blue crest", "a grey breast"],
    "red robin": ["a red breast"],
    "wren": ["a short tail", "a brown back"],
}
METHODS = ["clip", "cupl", "dnd", "abs"]
ENCODED = ["whole", "views.random", "views.guided"]
NOTHING = dict.fromkeys(("describe", "encode_text", "encode_images", "score", "evaluate", "project"), 0)


@pytest.fixture(scope="module")
def world(ray, tmp_path_factory, write_photos, tiny_model, write_job) -> Path:
    """A folder with a job that has run once: twelve pictures of three birds, four methods."""
    folder = tmp_path_factory.mktemp("grown") / "world"
    write_photos(folder / "photos", [f"{bird}/{number}.png" for bird in MARKS for number in range(4)])
    (folder / "marks.json").write_text(json.dumps(MARKS))
    shutil.copytree(tiny_model, folder / "model")
    write_job(
        folder,
        name="birds",
        dataset={"path": "photos"},
        model={"name": "local-dir:model"},
        descriptors={"marks": {"provider": "file", "path": "marks.json"}},
        views={
            "random": {"kind": "random", "crops": 3},
            "guided": {"kind": "guided", "guide": "clip", "crops": 2},
        },
        methods=METHODS,
        resources={"encode": {"batch": 5, "actors": 1}},
    )
    counts = run(folder)
    assert (counts["encode_images"], counts["score"]) == (12 * len(ENCODED), 12 * len(METHODS))
    return folder


def images(folder: Path) -> list[Path]:
    return sorted((folder / "photos").rglob("*.png"))


def status(folder: Path, *overrides: str) -> dict[str, str]:
    """Why rows are missing, by stage and table."""
    plan = make_plan(load_job(folder / "job.yaml", overrides))
    rows = status_rows(plan, Why(plan.inputs.store))
    return {f"{row['stage']}/{row['table']}": row["why"] for row in rows if row["table"] is not None and row["why"]}


def of_images(said: dict[str, str]) -> set[str]:
    """What is said of the tables of encode_images."""
    return {said[f"encode_images/{table}"] for table in ENCODED}


def stored(folder: Path) -> Counter[str]:
    """Rows that lie in the store, by stage and table, whatever the settings were that they were made with."""
    counts: Counter[str] = Counter()
    for stage in files.list_folders(str(folder / "runs/birds/tables")):
        for place in files.list_folders(stage):
            table = ShardTable(place)
            assert len(table.keys()) == table.rows(), "no row twice"
            counts[f"{os.path.basename(stage)}/{table.description()['name']}"] += table.rows()
    return counts


def computed(folder: Path, *overrides: str, until: str | None = None) -> dict[str, int]:
    """Run, and count the rows that came to the store, by stage and table."""
    before = stored(folder)
    run(folder, *overrides, selection=Selection(until=until))
    return dict(stored(folder) - before)


def expected(**stages: dict[str, int]) -> dict[str, int]:
    return {f"{stage}/{table}": rows for stage, tables in stages.items() for table, rows in tables.items()}


def each(names: list[str], rows: int, prefix: str = "") -> dict[str, int]:
    return {prefix + name: rows for name in names}


def evaluated(methods: list[str]) -> dict[str, int]:
    """The rows of evaluate that predictions of these methods make anew: theirs, and all comparisons."""
    return each(methods, 1, "methods.") | {"comparisons": len(METHODS) * (len(METHODS) - 1) // 2}


def predictions(folder: Path) -> list[dict]:
    return stored_predictions(make_plan(load_job(folder / "job.yaml")), (), top_k=3)


def boxes(folder: Path) -> dict[str, list[int]]:
    """Image id -> its random boxes."""
    plan = make_plan(load_job(folder / "job.yaml"))
    table = next(table for table in plan.of("encode_images").tables if table.name == "views.random")
    rows = table.keeper.read(keys=table.wanted, columns=["key", "boxes"]).to_pylist()
    return {row["key"].rsplit("@", 1)[0]: row["boxes"] for row in rows}


def test_a_second_run_computes_nothing_and_loads_neither_ray_nor_torch_nor_lancedb(world):
    script = (
        "import sys; sys.argv = ['fieldmark', 'run', sys.argv[1], '--json']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "loaded = {'ray', 'torch', 'lancedb', 'open_clip', 'numba', 'scipy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    call = [sys.executable, "-c", script, str(world / "job.yaml")]
    answer = subprocess.run(call, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert {stage["stage"]: stage["computed"] for stage in json.loads(answer.stdout)["stages"]} == NOTHING
    assert status(world) == {}


def test_new_and_changed_images_cost_themselves_and_a_changed_descriptor_that_text_and_what_reads_it(
    world, write_photos
):
    before, (gone, changed, *_) = boxes(world), images(world)
    write_photos(world / "photos", ["wren/7.png", "blue jay/8.png"])
    os.utime(changed, ns=(1, 1))
    gone.unlink()
    name = gone.relative_to(world / "photos").as_posix()
    store, up_to_date = FeatureStore.of_plan(make_plan(job := load_job(world / "job.yaml")), job)
    assert not up_to_date
    assert store.search("a red breast", k=1), "answered from the last run"
    marks = json.loads((world / "marks.json").read_text())
    (world / "marks.json").write_text(json.dumps(marks | {"red robin": ["a very red breast"]}))
    said, count = status(world), len(images(world))
    assert of_images(said) == {"2 new images; 1 changed image"}
    assert said["describe/descriptors.marks"] == "descriptors of 1 class changed: red robin"
    assert computed(world) == expected(
        describe={"descriptors.marks": 1},
        encode_images=each(ENCODED, 3),
        encode_text={"texts": 1},
        score=each(METHODS, count, "methods.") | {"methods.clip": 3},
        evaluate=evaluated(METHODS),
    )
    now = boxes(world)
    assert {image: now[image] for image in before if image != name} == {i: b for i, b in before.items() if i != name}
    assert name not in {row["image"] for row in predictions(world)}
    hits = FeatureStore.open(job.store).search("a red breast", k=1000)
    assert {hit["image"] for hit in hits} == set(now)
    assert collect_results(make_plan(job), "job")[0]["images"] == 13
    assert run(world) == NOTHING


def test_a_new_class_costs_its_own_images_and_texts_and_new_predictions_for_all(world, write_photos):
    write_photos(world / "photos", ["heron/0.png"])
    marks = json.loads((world / "marks.json").read_text())
    (world / "marks.json").write_text(json.dumps(marks | {"heron": ["a long grey neck"]}))
    count, said = len(images(world)), status(world)
    assert said["describe/descriptors.marks"] == "1 new class: heron"
    assert of_images(said) == {"1 new image"}
    run(world, selection=Selection(only="describe"))
    assert status(world)["encode_text/texts"] == "2 new texts", "its descriptor, and its name as clip reads it"
    assert status(world)["score/methods.clip"] == (f"1 class is new: heron: score starts a new table; {count} images")
    assert computed(world) == expected(
        encode_images=each(ENCODED, 1),
        encode_text={"texts": 2},
        score=each(METHODS, count, "methods."),
        evaluate=evaluated(METHODS),
    )


def test_a_changed_setting_a_new_view_set_and_another_method_compute_themselves_alone(world):
    count, former = len(images(world)), FeatureStore.open(str(world / "runs/birds")).database
    sharp = "methods=[clip, cupl, dnd, abs, {name: dnd, label: sharp, epsilon: 0.02}]"
    changed = ["views.random.crops=2", "views.small={kind: squares, crops: 2}", sharp]
    said = status(world, *changed)
    starts = f"starts a new table; {count} images"
    assert said == {
        "encode_images/views.random": f"views.random.crops 3 -> 2: encode_images {starts}",
        "encode_images/views.small": "not made yet",
        "score/methods.dnd": f"encode_images/views.random is another table: score {starts}",
        "score/methods.sharp": "not made yet",
        "evaluate/methods.dnd": "its predictions are new: evaluate starts a new table; 1 row",
        "evaluate/methods.sharp": "not made yet",
        "evaluate/comparisons": "other methods are compared; methods.dnd has new predictions; methods.sharp has new "
        "predictions: evaluate starts a new table; 10 rows",
    }
    assert computed(world, *changed) == expected(
        encode_images={"views.random": count, "views.small": count},
        score={"methods.dnd": count, "methods.sharp": count},
        evaluate={"methods.dnd": 1, "methods.sharp": 1, "comparisons": 10},
    )
    assert FeatureStore.open(str(world / "runs/birds")).database != former
    assert run(world) == NOTHING, "going back to the old settings costs nothing"
    assert FeatureStore.open(str(world / "runs/birds")).database == former
    job = load_job(world / "job.yaml", ["views.random.crops=7"])
    with pytest.raises(StoreError, match="not run to the end"):
        FeatureStore.of_plan(make_plan(job), job)


def test_another_model_computes_all_that_reads_it_and_nothing_of_the_first(world):
    from safetensors.torch import load_file, save_file

    shutil.copytree(world / "model", world / "other")
    weights = load_file(world / "other/open_clip_model.safetensors")
    save_file({name: 1.1 * value for name, value in weights.items()}, world / "other/open_clip_model.safetensors")
    count, other = len(images(world)), f"model.name=local-dir:{world / 'other'}"
    said = status(world, other)
    told = f"model.name local-dir:{world / 'model'} -> local-dir:{world / 'other'}"
    assert of_images(said) == {f"{told}: encode_images starts a new table; {count} images"}
    texts = len(make_plan(load_job(world / "job.yaml")).of("encode_text").tables[0].wanted)
    assert said["encode_text/texts"] == f"{told}: encode_text starts a new table; {texts} texts"
    assert computed(world, other, until="evaluate") == expected(
        encode_images=each(ENCODED, count),
        encode_text={"texts": texts},
        score=each(METHODS, count, "methods."),
        evaluate=evaluated(METHODS),
    )
    assert run(world) == NOTHING


def test_several_seeds_draw_their_own_crops_and_share_the_rest(world):
    count = len(images(world))
    assert computed(world, "seed=[0, 1]", until="evaluate") == expected(
        encode_images={"views.random.seed.1": count, "views.guided.seed.1": count},
        score={"methods.dnd.seed.1": count, "methods.abs.seed.1": count},
        evaluate={"methods.dnd.seed.1": 1, "methods.abs.seed.1": 1, "comparisons": 6},
    )
    rows = collect_results(make_plan(load_job(world / "job.yaml", ["seed=[0, 1]"])), "job")
    (dnd,) = [row for row in rows if row["method"] == "dnd"]
    assert dnd["seeds"] == [0, 1]
    assert dnd["sd"] is not None


def test_a_renamed_view_set_and_a_copied_data_set_cost_nothing_but_their_projection(world, tmp_path):
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    assert run(copy) == NOTHING | {"project": 1}
    (copy / "job.yaml").write_text((copy / "job.yaml").read_text().replace("  random:", "  scattered:"))
    assert run(copy, selection=Selection(until="evaluate")) == {name: 0 for name in NOTHING if name != "project"}


def test_forcing_a_stage_computes_its_rows_again_and_leaves_the_rest(world):
    before = predictions(world)
    counts = run(world, selection=Selection(force="score", until="score"))
    assert counts["score"] == len(images(world)) * len(METHODS)
    assert counts["encode_images"] == counts["encode_text"] == 0
    assert predictions(world) == before


def test_a_store_that_grew_holds_what_a_fresh_one_would_whatever_the_batch(world):
    fresh = ["store=runs/fresh", "resources.encode.batch=7"]
    run(world, *fresh, selection=Selection(until="score"))
    plan = make_plan(load_job(world / "job.yaml", fresh))
    expected = {(row["image"], row["method"]): row for row in stored_predictions(plan, (), top_k=3)}
    rows = predictions(world)
    assert {(row["image"], row["method"]) for row in rows} == set(expected)
    for row in rows:
        other = expected[row["image"], row["method"]]
        assert row["class"] == other["class"] or row["margin"] < 1e-2
    for grown, new in zip(
        make_plan(load_job(world / "job.yaml")).of("encode_images").tables, plan.of("encode_images").tables, strict=True
    ):
        assert grown.fingerprint == new.fingerprint
        if grown.plan is not None:
            columns = [keeper.read(grown.wanted, ["boxes"])["boxes"] for keeper in (grown.keeper, new.keeper)]
            assert columns[0].to_pylist() == columns[1].to_pylist()
