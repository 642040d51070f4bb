"""project: the LanceDB tables follow the shards by the rows that differ, and hold nothing that is no longer wanted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import yaml

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from stages.encode_images import describe_table
from stages.stage import Run
from storage.lance import Projection
from storage.markers import marker
from storage.schemas import fixed_list

D = 6
DESCRIPTORS = {"jay": ["a crest", "a collar"], "robin": ["a red breast"], "wren": ["a cocked tail"]}
FOLDERS = {"blue jay": "jay", "red robin": "robin", "wren": "robin", "none": "wren"}


def run(counted: list[int]) -> Run:
    return Run("run", lambda done, rejected: counted.append(done), lambda: None)


def unit(*shape: int) -> np.ndarray:
    vectors = np.random.default_rng(sum(shape)).normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def encode_all(plan) -> None:
    """Rows of random vectors wherever encode_images and encode_text lack them."""
    for table in plan.of("encode_images").tables:
        table.keeper.create(describe_table(table))
        count, keys = len(table.missing), table.missing
        if not count:
            continue
        columns = {"key": keys, "seconds": pa.array([0.1] * count, pa.float32())}
        crops = 1 if table.plan is None else table.plan[0].crops
        columns["vectors"] = fixed_list(unit(count, crops, D).astype(np.float16))
        if table.plan is None:
            columns |= {name: pa.array([20] * count, pa.int32()) for name in ("width", "height")}
        else:
            columns["boxes"] = fixed_list(np.arange(count * crops * 4, dtype=np.int32).reshape(count, crops, 4))
        table.keeper.append(pa.table(columns), "run")
    (texts,) = plan.of("encode_text").tables
    if texts.missing:
        rows = {"key": texts.missing, "vector": fixed_list(unit(len(texts.missing), D).astype(np.float32))}
        texts.keeper.append(pa.table(rows), "run")


@pytest.fixture
def job(small_job, tmp_path):
    """The path of a job of six pictures, their class folders named by a file, and descriptors of three classes."""
    path = small_job(dataset={"path": "photos", "classes": "names.yaml"}, methods=["cupl", "dnd", "abs"])
    (tmp_path / "names.yaml").write_text(yaml.safe_dump(FOLDERS, sort_keys=False))
    (tmp_path / "marks.json").write_text(json.dumps(DESCRIPTORS))
    return path


def projected(path) -> tuple[Projection, dict[str, int]]:
    """Bring everything up to date; the database, and the rows changed in each LanceDB table that was out of date."""
    job = load_job(path)
    plan = make_plan(job)
    plan.of("describe").stage.compute(
        [table for table in plan.of("describe").tables if table.missing], plan.inputs, run([])
    )
    encode_all(make_plan(job))
    plan = make_plan(job)
    (table,) = plan.of("project").tables
    changed: dict[str, int] = {}
    for key in table.missing.to_pylist():
        told: list[int] = []
        plan.of("project").stage.compute([replace(table, wanted=[key])], plan.inputs, run(told))
        changed[key.rsplit("@", 1)[0]] = sum(told)
    assert make_plan(job).of("project").done
    return Projection(table.keeper.uri), changed


def column(database: Projection, table: str, name: str) -> list:
    return database.described(table)[name].to_pylist()


def test_every_image_crop_and_descriptor_has_a_row_and_a_second_time_nothing_changes(job):
    database, changed = projected(job)
    assert changed == {"images": 6, "crops": 6 * (3 + 2), "descriptors": 4}
    assert {name: len(database.ids(name)) for name in database.tables()} == changed
    assert sorted(set(column(database, "crops", "view"))) == ["guided", "random"]
    assert sorted(column(database, "images", "class")) == ["jay"] * 2 + ["robin"] * 4
    assert sorted(column(database, "descriptors", "text")) == sorted(
        text for texts in DESCRIPTORS.values() for text in texts
    )
    _, again = projected(job)
    assert again == {}


def test_a_crop_has_the_box_and_the_vector_of_its_place_in_the_shard(job):
    database, _ = projected(job)
    plan = make_plan(load_job(job))
    for table in plan.of("encode_images").tables[1:]:
        crops = table.plan[0].crops
        rows = table.keeper.read().to_pylist()
        for row in rows:
            for number in range(crops):
                vector = row["vectors"][number * D : (number + 1) * D]
                (hit,) = database.search("crops", vector, k=1)
                assert hit["id"] == f"{row['key']}#{table.name.removeprefix('views.')}#{number}"
                assert hit["box"] == row["boxes"][number * 4 : (number + 1) * 4]
                assert hit["number"] == number
                assert hit["image"] == row["key"].split("@")[0]


def test_a_changed_label_writes_the_rows_of_its_images_again_and_no_others(job, tmp_path):
    projected(job)
    (tmp_path / "names.yaml").write_text(yaml.safe_dump(FOLDERS | {"wren": "wren"}, sort_keys=False))
    database, changed = projected(job)
    assert changed == {"images": 2, "crops": 2 * (3 + 2)}
    rows = database.described("crops").to_pylist()
    assert {(row["image"].split("/")[0], row["class"]) for row in rows} == {
        ("blue jay", "jay"),
        ("red robin", "robin"),
        ("wren", "wren"),
    }
    assert len(rows) == 30


def test_a_removed_image_takes_its_crops_with_it(job, tmp_path):
    projected(job)
    (tmp_path / "photos/wren/1.png").unlink()
    database, changed = projected(job)
    assert changed == {"images": 1, "crops": 5}
    assert "wren/1.png" not in column(database, "crops", "image")
    assert (len(database.ids("images")), len(database.ids("crops"))) == (5, 25)


def test_images_without_a_label_are_written_once_and_again_when_they_get_one(job, tmp_path, write_photos):
    write_photos(tmp_path / "photos", ["loose.png"])
    database, changed = projected(job)
    assert changed["images"] == 7
    assert column(database, "images", "class").count(None) == 1
    write_photos(tmp_path / "photos", ["wren/2.png"])
    assert projected(job)[1] == {"images": 1, "crops": 5}, "the one without a label is not written again"
    (tmp_path / "photos/none").mkdir()
    (tmp_path / "photos/loose.png").rename(tmp_path / "photos/none/loose.png")
    database, changed = projected(job)
    assert changed == {"images": 2, "crops": 10}, "one came, one went"
    assert None not in column(database, "images", "class") + column(database, "crops", "class")


def test_a_run_that_has_lost_the_store_commits_nothing_more(job):
    database, _ = projected(job)
    plan = make_plan(load_job(job))
    (table,) = plan.of("project").tables
    table.keeper.clear()
    (table,) = make_plan(load_job(job)).of("project").tables
    asked = []

    def lost() -> None:
        asked.append(len(Projection(database.uri).ids("images")))
        if asked[-1]:
            raise RuntimeError("another run has it")

    with pytest.raises(RuntimeError, match="another run has it"):
        plan.of("project").stage.compute([table], plan.inputs, replace(run([]), still_ours=lost))
    assert asked == [0, 0, 6]
    assert marker(database.uri, "images") is None


def test_a_changed_description_is_the_only_row_written(job, tmp_path):
    projected(job)
    (tmp_path / "marks.json").write_text(json.dumps(DESCRIPTORS | {"wren": ["a pale brow"]}))
    database, changed = projected(job)
    assert changed == {"descriptors": 1}
    assert sorted(column(database, "descriptors", "text")) == ["a collar", "a crest", "a pale brow", "a red breast"]


def test_another_view_setting_is_another_database_and_the_former_one_stays(job):
    before, _ = projected(job)
    document = yaml.safe_load(job.read_text())
    document["views"]["random"]["crops"] = 4
    job.write_text(yaml.safe_dump(document))
    after, changed = projected(job)
    assert after.uri != before.uri
    assert changed["crops"] == 6 * (4 + 2)
    assert len(before.ids("crops")) == 30


def test_rejected_images_are_not_shown_even_when_all_are(job):
    loaded = load_job(job)
    for table in make_plan(loaded).of("encode_images").tables:
        refused = [{"key": key, "uri": key, "reason": "the file is empty"} for key in table.wanted.to_pylist()]
        table.keeper.reject(refused, "encode_images", "run")
    database, changed = projected(job)
    assert changed == {"images": 0, "crops": 0, "descriptors": 4}
    assert database.tables() == ["crops", "descriptors", "images"]


@pytest.mark.parametrize(
    "first", ["abs_code", {"name": "wca", "views": "random"}, {"name": "dnd", "global_weight": 1.0}]
)
def test_descriptors_are_those_that_the_first_reader_of_their_set_reads_without_its_label_prompt(job, first):
    keys = yaml.safe_load(job.read_text())
    keys["views"]["abs_code"] = {"guide": "clip", "crops": 2}
    job.write_text(yaml.safe_dump(keys | {"methods": ["clip", "waffle", first]}))
    database, _ = projected(job)
    expected = {text for texts in DESCRIPTORS.values() for text in (texts[:1] if first == "abs_code" else texts)}
    assert set(column(database, "descriptors", "text")) == expected
