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
from stages.build_caches import CacheSource
from stages.encode_images import describe_table
from stages.project import Project
from stages.settings import ProjectSettings
from stages.stage import Ingredients, Run, Table
from storage import lance, lance_index, lance_versions
from storage.lance import Projection
from storage.markers import marker
from storage.schemas import fixed_list
from storage.shards import ShardTable

D = 6
DESCRIPTORS = {"jay": ["a crest", "a collar"], "robin": ["a red breast"], "wren": ["a cocked tail"]}
FOLDERS = {"blue jay": "jay", "red robin": "robin", "wren": "robin", "none": "wren"}


def run(counted: list[int]) -> Run:
    return Run("run", lambda done, rejected: counted.append(done), lambda: None)


def unit(*shape: int) -> np.ndarray:
    vectors = np.random.default_rng(sum(shape)).normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def encode_all(plan, scale: float = 1.0) -> None:
    """Rows of random vectors of a length wherever encode_images and encode_text lack them."""
    for table in plan.of("encode_images").tables:
        table.keeper.create(describe_table(table))
        count, keys = len(table.missing), table.missing
        if not count:
            continue
        columns = {"key": keys, "seconds": pa.array([0.1] * count, pa.float32())}
        crops = 1 if table.plan is None else table.plan[0].crops
        columns["vectors"] = fixed_list((scale * unit(count, crops, D)).astype(np.float16))
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


def caches_of(plan, folder, prompts, shots, chosen=None) -> tuple[Table, ...]:
    """A table of build_caches over the crops of `random`: shots are (seed, shot, image id, class).

    `chosen` says the crop and similarity of an image's every description, by default those of its place.
    """
    (view,) = [table for table in plan.of("encode_images").tables if table.name == "views.random"]
    keys = {key.rsplit("@", 1)[0]: key for key in view.wanted.to_pylist()}
    columns = list(zip(*[(keys[image], image, name, seed, shot) for seed, shot, image, name in shots], strict=True))
    names = ("key", "id", "class", "seed", "shot")
    ints = {"seed": pa.int32(), "shot": pa.int32()}
    source = CacheSource(
        view,
        "random",
        "marks",
        prompts,
        pa.table({name: pa.array(column, ints.get(name)) for name, column in zip(names, columns, strict=True)}),
        texts="",
        crops=3,
    )
    wanted = sorted({f"{keys[image]}#{name}" for _, _, image, name in shots})
    made = [(chosen or place_of)(key, len(prompts[key.rsplit("#", 1)[1]])) for key in wanted]
    rows = {"key": wanted, "crops": pa.array([crops for crops, _ in made], pa.list_(pa.int32()))}
    rows["similarities"] = pa.array([similarities for _, similarities in made], pa.list_(pa.float32()))
    ingredients = Ingredients(settings={"made": repr([prompts, made])}, version=1)
    table = Table("build_caches", "cache.random", ingredients, wanted, ShardTable(str(folder)), plan=source)
    table = replace(table, keeper=ShardTable(f"{folder}/{table.fingerprint}"))
    table.keeper.append(pa.table(rows), "run")
    return (table,)


def place_of(key: str, count: int) -> tuple[list[int], list[float]]:
    return [(len(key) + number) % 3 for number in range(count)], [0.25 + 0.125 * number for number in range(count)]


def brought(path, caches=(), **settings) -> tuple[Projection, dict[str, int], list[str]]:
    """Project, once all else is there, with tables of build_caches and settings; the same, and what was told."""
    plan, job, told = make_plan(load_job(path)), load_job(path), []
    inputs = replace(plan.inputs, kept={**plan.inputs.kept, "build_caches": caches})
    stage = Project(job.methods, job.descriptors, ProjectSettings(**settings), job.name)
    (table,) = stage.tables(inputs)
    changed: dict[str, int] = {}
    for key in table.missing.to_pylist():
        counted: list[int] = []
        stage.compute([replace(table, wanted=[key])], inputs, replace(run(counted), tell=told.append))
        changed[key.rsplit("@", 1)[0]] = sum(counted)
    (table,) = stage.tables(inputs)
    assert table.complete
    return Projection(table.keeper.uri), changed, told


def projected(path, scale: float = 1.0) -> tuple[Projection, dict[str, int]]:
    """Bring everything up to date; the database, and the rows changed in each LanceDB table that was out of date."""
    job = load_job(path)
    plan = make_plan(job)
    plan.of("describe").stage.compute(
        [table for table in plan.of("describe").tables if table.missing], plan.inputs, run([])
    )
    encode_all(make_plan(job), scale)
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
    assert changed == {"images": 6, "crops": 6 * (3 + 2), "descriptors": 4, "cache": 0}
    assert {name: len(database.ids(name)) for name in database.tables()} | {"cache": 0} == changed
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
    assert changed == {"images": 0, "crops": 0, "descriptors": 4, "cache": 0}
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


SHOTS = [(1, 0, "blue jay/0.png", "jay"), (1, 0, "wren/1.png", "robin"), (2, 0, "wren/1.png", "robin")]
TEXTS = {"jay": ["a crest", "a collar"], "robin": ["a red breast"]}


def cached(database: Projection) -> dict[str, dict]:
    return {row["id"]: row for row in database.described("cache", database.schema("cache").names).to_pylist()}


def test_the_cache_has_a_row_for_every_seed_shot_and_description_with_its_crop(job, tmp_path):
    projected(job)
    plan = make_plan(load_job(job))
    caches = caches_of(plan, tmp_path / "caches", TEXTS, SHOTS)
    database, changed, _ = brought(job, caches)
    assert changed == {"cache": 4}
    view, rows = caches[0].plan.view, cached(database)
    shards = {row["key"]: row for row in view.keeper.read().to_pylist()}
    expected = [
        (seed, shot, image, name, number, text)
        for seed, shot, image, name in SHOTS
        for number, text in enumerate(TEXTS[name])
    ]
    keys = {key.rsplit("@", 1)[0]: key for key in shards}
    assert len(rows) == len(expected)
    for seed, shot, image, name, number, text in expected:
        key = keys[image]
        crops, similarities = place_of(f"{key}#{name}", len(TEXTS[name]))
        row = rows[f"random#{seed}#{key}#{name}#{number}"]
        assert (row["seed"], row["shot"], row["image"], row["class"]) == (seed, shot, image, name)
        assert (row["set"], row["view"], row["descriptor"], row["text"]) == ("marks", "random", number, text)
        assert (row["number"], row["descriptor_similarity"]) == (crops[number], similarities[number])
        assert row["box"] == shards[key]["boxes"][crops[number] * 4 :][:4]
        assert row["vector"] == shards[key]["vectors"][crops[number] * D :][:D]
    assert brought(job, caches)[1] == {}
    (hit, *_) = database.search("cache", rows[next(iter(rows))]["vector"], k=1)
    assert {"similarity", "descriptor_similarity", "box", "seed"} <= set(hit)


def test_the_cache_follows_shots_descriptions_and_choices_by_the_rows_that_differ(job, tmp_path, monkeypatch):
    projected(job)
    plan, folder = make_plan(load_job(job)), tmp_path / "caches"
    monkeypatch.setattr("stages.projected.cache.IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(lance, "UPSERT_ROWS", 3)
    monkeypatch.setattr(lance, "DELETE_ROWS", 1)

    def change(texts, shots, chosen=None) -> int:
        database, changed, _ = brought(job, caches_of(plan, folder, texts, shots, chosen))
        assert len(cached(database)) == sum(len(texts[name]) for _, _, _, name in shots)
        return changed["cache"]

    assert change(TEXTS, SHOTS) == 4
    more = [*SHOTS, (1, 1, "blue jay/1.png", "jay"), (3, 0, "blue jay/0.png", "jay")]
    assert change(TEXTS, more) == 4, "more shots and seeds add rows"
    assert change(TEXTS, [(1, 1, *SHOTS[0][2:]), *more[1:]]) == 2, "a shot's place is a column"
    assert change(TEXTS, SHOTS) == 2 + 4, "one place again, four rows go"
    assert change(TEXTS | {"jay": ["a crest"]}, SHOTS) == 1, "a description fewer"
    assert change(TEXTS | {"jay": ["a blue crest"]}, SHOTS) == 1, "other words"
    assert change(TEXTS, SHOTS, lambda key, count: ([1] * count, [0.5] * count)) >= 2, "other crops"


def test_tables_that_are_switched_off_are_dropped_and_made_again(job, tmp_path):
    projected(job)
    caches = caches_of(make_plan(load_job(job)), tmp_path / "caches", TEXTS, SHOTS)
    database, _, _ = brought(job, caches)
    assert database.tables() == ["cache", "crops", "descriptors", "images"]
    without, changed, _ = brought(job, caches, crops=False, cache=False)
    assert (without.uri, changed) == (database.uri, {"crops": 0, "cache": 0})
    assert without.tables() == ["descriptors", "images"]
    assert brought(job, caches)[1] == {"crops": 30, "cache": 4}
    assert brought(job)[1] == {"cache": 0}, "a job without caches"
    assert database.tables() == ["crops", "descriptors", "images"]


def test_a_large_table_gets_an_index_and_loses_it_when_the_setting_says_so(job, monkeypatch):
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 20)
    projected(job)
    database, changed, told = brought(job, index="none")
    assert (changed, told) == ({"images": 0, "crops": 0, "descriptors": 0}, [])
    opened = database._database.open_table
    assert lance_index.vector_index(opened("crops")) is None
    _, changed, told = brought(job, index="auto")
    assert (set(changed), told) == ({"images", "crops", "descriptors"}, [])
    assert lance_index.vector_index(opened("crops")).uncovered == 0
    assert lance_index.vector_index(opened("images")) is None


def test_a_run_is_told_of_rows_that_no_index_covers(job, monkeypatch):
    projected(job, scale=0.0)
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 5)
    assert brought(job, index="none")[2] == []
    _, _, told = brought(job)
    assert told == [
        f"{name}: {rows} rows are in no index, and are compared one by one by every search"
        for name, rows in (("images", 6), ("crops", 30))
    ]


def test_every_table_is_tagged_with_the_run_and_names_the_model_and_its_weights(job):
    database, _ = projected(job)
    plan = make_plan(load_job(job))
    whole = plan.of("encode_images").tables[0]
    for name in database.tables():
        assert lance_versions.tagged_runs(database._database.open_table(name)) == ["run"]
        metadata = database.schema(name).metadata
        assert metadata[b"weights"].decode() == whole.ingredients.weights
        assert metadata[b"fingerprint"].decode() == whole.fingerprint
        assert whole.told["model.name"] in metadata[b"model"].decode()


def test_the_first_projection_joins_nothing_so_that_its_memory_does_not_grow(job, monkeypatch):
    upserted, upsert = [], Projection.upsert
    monkeypatch.setattr(
        Projection,
        "upsert",
        lambda self, name, schema, rows: upserted.append(len(rows)) or upsert(self, name, schema, rows),
    )
    projected(job)
    assert upserted == [0, 0, 0]


def test_a_projection_that_was_cut_short_between_two_commits_is_completed(job, monkeypatch):
    """Crops are looked for by their image: those of one image and view set are there together or not at all."""
    monkeypatch.setattr(lance, "UPSERT_ROWS", 5)
    database, _ = projected(job)
    (table,) = make_plan(load_job(job)).of("project").tables
    table.keeper.clear()
    plan = make_plan(load_job(job))
    (table,) = plan.of("project").tables
    asked = []

    def killed() -> None:
        asked.append(1)
        if len(asked) == 5:
            raise KeyboardInterrupt

    crops = [key for key in table.wanted.to_pylist() if key.startswith("crops@")]
    with pytest.raises(KeyboardInterrupt):
        plan.of("project").stage.compute(
            [replace(table, wanted=crops)], plan.inputs, replace(run([]), still_ours=killed)
        )
    there = len(Projection(database.uri).ids("crops"))
    assert 0 < there < 30
    assert projected(job)[1]["crops"] == 30 - there
    assert sorted(column(database, "crops", "number")) == sorted([*range(3), *range(2)] * 6)
