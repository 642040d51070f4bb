"""FeatureStore: what a run left is searched, read and scanned, by the model that made it or not at all."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path

import duckdb
import lancedb
import numpy as np
import pyarrow as pa
import pytest

from pipeline import feature_store
from pipeline.feature_store import FeatureStore
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.query_error import QueryError, StoreError
from pipeline.store_model import StoreModel
from stages.settings import ModelSettings
from stages.stage import weights_cache
from storage.files import write_atomic
from storage.lance import Projection
from storage.schemas import cache_schema, to_numpy


@pytest.fixture(scope="module")
def store(finished_job) -> FeatureStore:
    return FeatureStore.open(load_job(finished_job).store)


def test_the_examples_of_the_class_are_true(finished_job):
    photo = finished_job.parent / "photos/test/wren/2.png"
    names = {"folder": load_job(finished_job).store, "photo": photo}
    found = doctest.DocTestFinder().find(FeatureStore, globs=vars(feature_store) | names)
    runner = doctest.DocTestRunner()
    results = [runner.run(test) for test in found]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 8


def test_a_store_is_told_by_its_tables(store):
    told = store.tables()
    assert told["database"] == ["crops", "descriptors", "images"]
    assert {"whole", "views.random", "views.guided", "texts", "descriptors.marks", "methods.abs"} <= set(told["shards"])
    assert "evaluate/methods.abs" in told["shards"], "methods.abs are its predictions, of the stage before"
    assert {
        name: store.scan(name).read_all().num_rows for name in ("methods.abs", "evaluate/methods.abs", "texts")
    } == {
        "methods.abs": 12,
        "evaluate/methods.abs": 1,
        "texts": store.scan("texts", columns=["key"]).read_all().num_rows,
    }


def test_a_vector_finds_what_its_text_finds_and_an_image_finds_itself(store, finished_job):
    vector = store.model.encode_text("a red breast")
    assert store.search(vector=vector, k=5) == store.search("a red breast", k=5)
    (crop,) = store.to_arrow("crops", where="number = 1 AND view = 'random'").slice(3, 1).to_pylist()
    (hit,) = store.search(vector=crop["vector"], k=1)
    assert (hit["id"], hit["similarity"]) == (crop["id"], pytest.approx(1, abs=2e-3))
    image = finished_job.parent / "photos/test/wren/2.png"
    assert store.search(image=image, table="images", k=1) == store.search(image=str(image), table="images", k=1)


def test_rows_are_restricted_by_class_split_similarity_and_condition_together(store):
    every = store.search("a red breast", k=1000)
    assert len(every) == 12 * 5
    middle = every[30]["similarity"]
    wanted = [
        hit
        for hit in every
        if hit["class"] == "wren" and hit["view"] == "random" and hit["number"] != 1 and hit["similarity"] >= middle
    ]
    restricted = {"class_name": "wren", "split": "query", "min_similarity": middle}
    found = store.search("a red breast", k=1000, where="view = 'random' AND NOT number = 1", **restricted)
    assert found == wanted
    assert store.search("a red breast", table="descriptors", descriptors="none of these") == []
    assert store.search("a red breast", k=1000, exact=True) == every


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({}, "one of them"),
        ({"text": "a", "vector": [1.0]}, "one of them"),
        ({"text": "a", "table": "crop"}, "no table is called 'crop'; there are crops, images, descriptors, cache"),
        (
            {"text": "a", "table": "descriptors", "split": "query"},
            "no column 'split'; it has id, class, set, number, text",
        ),
        ({"text": "a", "where": "klass = 'wren'"}, "where: .*'klass'.*image, view, kind, number, class, split"),
        ({"text": "a", "where": "class = 'wren"}, "where: .*quote"),
        ({"vector": [1.0, 2.0]}, "have 24 numbers, the one asked for 2"),
    ],
)
def test_a_question_that_cannot_be_meant_is_refused_with_what_would_be_right(store, call, words):
    with pytest.raises(QueryError, match=words):
        store.search(**call)


def test_a_condition_is_read_and_never_passed_on(store):
    for trick in ("class = 'wren'; DROP TABLE crops", "1 = 1", "class = 'wren' -- all", "class = (SELECT 1)"):
        with pytest.raises(QueryError, match="where"):
            store.to_arrow("crops", where=trick)
    assert store.to_arrow("crops", where="class = 'wren'' OR ''1''=''1'").num_rows == 0


def test_a_table_that_is_not_there_is_told_with_what_would_make_it(store):
    with pytest.raises(StoreError, match=r"has no table 'cache'; it has .*crops.*dnd_tip"):
        store.cache("wren")


def test_a_store_of_another_model_is_refused_with_both_names(store, tmp_path, finished_job):
    model = ModelSettings(name="ViT-B-32", weights="openai")
    other = StoreModel(model, "ViT-B-32:0123abcd:quick_gelu", weights_cache(str(tmp_path)))
    mixed = FeatureStore(store.store, store.database, other, {})
    with pytest.raises(StoreError) as refused:
        mixed.search("a red breast")
    for word in (store.model.weights, "ViT-B-32 openai", "ViT-B-32:0123abcd:quick_gelu", "cannot be compared"):
        assert word in str(refused.value)
    assert mixed.to_arrow("images").num_rows == 12, "reading needs no model"


def test_a_job_of_another_model_is_told_both_names(finished_job, tiny_model, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (folder / name).write_bytes((tiny_model / name).read_bytes() + b" ")
    job = load_job(finished_job, [f"model.name=local-dir:{folder}"])
    plan = make_plan(job)
    with pytest.raises(StoreError, match="holds vectors of local-dir:") as refused:
        FeatureStore.of_plan(plan, job)
    assert f"local-dir:{tiny_model}" in str(refused.value)
    assert f"local-dir:{folder}" in str(refused.value)


def test_a_store_without_its_weights_is_read_and_not_asked(store, tmp_path):
    gone = StoreModel(ModelSettings(name=f"local-dir:{tmp_path}/gone"), store.model.weights, str(tmp_path / "w.json"))
    without = FeatureStore(store.store, store.database, gone, {})
    assert without.crops("test/wren/0.png").num_rows == 5
    with pytest.raises(StoreError, match=r"cannot be loaded: .*gone"):
        without.search("a red breast")


def test_cached_crops_are_searched_and_read_by_class(store, tmp_path):
    crops = store.to_arrow("crops", where="class = 'wren' AND view = 'random'")
    count, made_by = len(crops), store.schema("crops").metadata
    told = {
        "set": ["marks"] * count,
        "text": ["a short tail"] * count,
        "descriptor_similarity": [0.25] * count,
        "method": ["dnd_tip"] * count,
    }
    numbers = {name: list(range(count)) for name in ("descriptor", "shot", "seed")}
    kept = crops.drop_columns(["kind", "split"]).to_pydict() | told | numbers
    schema = cache_schema(24, made_by)
    Projection(str(tmp_path)).upsert(
        "cache", schema, pa.table({name: pa.array(kept[name], schema.field(name).type) for name in schema.names})
    )
    caching = FeatureStore(store.store, str(tmp_path), store.model, {})
    hits = caching.search("a red breast", table="cache", descriptors="marks", where="shot < 3", k=9)
    expected = store.search("a red breast", where="view = 'random'", class_name="wren", k=100)
    shots = crops["id"].to_pylist()[:3]
    assert [hit["id"] for hit in hits] == [hit["id"] for hit in expected if hit["id"] in shots]
    assert {hit["descriptor_similarity"] for hit in hits} == {0.25}
    assert caching.cache("wren").num_rows == count
    assert caching.cache("blue jay").num_rows == 0


def test_a_cached_crop_comes_once_whatever_the_seeds_that_drew_its_image(store, tmp_path):
    crops = store.to_arrow("crops", where="view = 'random' AND number = 0")
    count, seeds = len(crops), 3
    told = {"set": "marks", "text": "a short tail", "method": "dnd_tip", "descriptor_similarity": 0.25}
    rows = [
        {**row, **told, "id": f"{seed}#{row['id']}", "descriptor": 0, "shot": 0, "seed": seed}
        for row in crops.drop_columns(["kind", "split"]).to_pylist()
        for seed in range(seeds)
    ]
    schema = cache_schema(24, store.schema("crops").metadata)
    Projection(str(tmp_path)).upsert("cache", schema, pa.Table.from_pylist(rows, schema=schema))
    caching = FeatureStore(store.store, str(tmp_path), store.model, {})
    hits = caching.search("a red breast", table="cache", k=5)
    expected = store.search("a red breast", where="view = 'random' AND number = 0", k=5)
    assert [hit["image"] for hit in hits] == [hit["image"] for hit in expected]
    assert len(caching.search("a red breast", table="cache", k=100)) == count


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"text": "  "}, "the text to search for is empty"),
        ({"text": "r\udced"}, "not UTF-8"),
        ({"text": "red", "k": 0}, "k is 0"),
        ({"text": "red", "k": 2.5}, "k is 2.5"),
        ({"text": "red", "class_name": 3}, "class_name is 3"),
        ({"vector": [0.0] * 24}, "no direction"),
    ],
    ids=["empty", "bytes", "none", "a fraction", "a number", "zero"],
)
def test_a_search_that_cannot_be_meant_is_a_query_error(store, call, message):
    with pytest.raises(QueryError, match=message):
        store.search(**call)


def test_tables_are_read_by_image_and_class(store):
    assert store.images()["id"].to_pylist().count("test/wren/0.png") == 1
    crops = store.crops("test/wren/0.png")
    assert sorted(zip(crops["view"].to_pylist(), crops["number"].to_pylist(), strict=True)) == [
        ("guided", 0),
        ("guided", 1),
        ("random", 0),
        ("random", 1),
        ("random", 2),
    ]
    assert sorted(store.descriptors("wren")["text"].to_pylist()) != []
    assert set(store.descriptors("wren")["class"].to_pylist()) == {"wren"}
    assert store.crops("test/it's no image'; --").num_rows == 0


def test_rows_are_handed_to_polars_as_they_are(store):
    frame = store.to_polars("crops", columns=["image", "number", "vector"], where="class = 'wren'")
    rows = store.to_arrow("crops", columns=["image", "number", "vector"], where="class = 'wren'")
    assert frame.shape == (20, 3)
    assert str(frame.schema["vector"]) == "Array(Float16, shape=(24,))"
    assert np.array_equal(frame["vector"].to_numpy(), to_numpy(rows["vector"], (24,)))
    with pytest.raises(QueryError, match=r"no columns \['klass'\]"):
        store.to_arrow("crops", columns=["klass"])


def test_shards_are_scanned_whole_or_by_column_as_stored_or_in_single_floats(store):
    reader = store.scan("views.guided")
    rows = reader.read_all()
    assert rows.num_rows == 12
    assert rows["vectors"].type == pa.list_(pa.float16(), 2 * 24)
    some = store.scan("views.guided", "float32", ["vectors", "key"]).read_all()
    assert some.column_names == ["vectors", "key"]
    assert some["vectors"].type == pa.list_(pa.float32(), 2 * 24)
    assert np.array_equal(to_numpy(some["vectors"], (2, 24)), to_numpy(rows["vectors"], (2, 24)))
    assert some["key"].equals(rows["key"])


@pytest.mark.parametrize(
    ("table", "columns", "words"),
    [
        ("hole", None, "there is no 'hole'; tables of shards are .*views.guided"),
        ("crops", None, "'crops' is in the database: use to_arrow"),
        ("whole", ["klass"], r"no columns \['klass'\]; it has \['key'"),
    ],
)
def test_a_scan_that_cannot_be_meant_is_refused_with_what_would_be_right(store, table, columns, words):
    with pytest.raises(QueryError, match=words):
        store.scan(table, columns=columns)


def test_duckdb_reads_what_was_cast(store):
    whole = store.scan("whole", "float32")
    assert duckdb.sql("SELECT count(*), max(len(vectors)) FROM whole").fetchall() == [(12, 24)]
    crops = store.to_arrow("crops", dtype="float32")
    answer = duckdb.sql('SELECT "class", count(*) FROM crops GROUP BY 1 ORDER BY 1').fetchall()
    assert answer == [("blue jay", 20), ("red robin", 20), ("wren", 20)]
    assert (len(crops), whole.schema.names[0]) == (60, "key")


def test_plain_lancedb_reads_the_tables(store):
    crops = lancedb.connect(store.database).open_table("crops")
    vector = store.model.encode_text("a red breast")
    found = crops.search(vector).distance_type("cosine").where("class = 'red robin'").limit(3).to_list()
    hits = store.search("a red breast", class_name="red robin", k=3)
    assert [row["id"] for row in found] == [hit["id"] for hit in hits]
    assert crops.schema.metadata[b"weights"].decode() == store.model.weights


def test_a_store_in_a_bucket_answers_as_on_a_disk(store, bucket):
    for path in Path(store.store).rglob("*"):
        if path.is_file():
            name = path.relative_to(store.store).as_posix()
            write_atomic(f"{bucket}/birds/{name}", path.read_bytes(), run="copy")
    remote = FeatureStore.open(f"{bucket}/birds")
    assert remote.tables() == store.tables()
    assert remote.search("a red breast", k=3) == store.search("a red breast", k=3)
    assert remote.scan("views.random").read_all().equals(store.scan("views.random").read_all())
    assert remote.crops("test/wren/0.png").sort_by("id").equals(store.crops("test/wren/0.png").sort_by("id"))


def test_a_store_is_opened_and_told_without_torch_ray_or_lancedb(finished_job):
    code = (
        "import sys\n"
        "from pipeline.feature_store import FeatureStore\n"
        f"store = FeatureStore.open({load_job(finished_job).store!r})\n"
        "rows = store.scan('whole').read_all().num_rows\n"
        "heavy = {'lancedb', 'torch', 'ray', 'numba', 'scipy', 'polars', 'matplotlib', 'jinja2'}\n"
        "print(rows, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(" ", 1) == ["12", "[]\n"]


def test_a_store_without_a_completed_run_says_so(tmp_path, finished_job):
    with pytest.raises(StoreError, match="has no completed run: run the job first"):
        FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match="no completed run of fish"):
        FeatureStore.open(load_job(finished_job).store, "fish")
    record = {"run": "1", "job": "birds", "database": "lance/gone", "settings": {"model": {}}, "tables": {}}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/1.json").write_text(json.dumps(record | {"weights": "w"}))
    with pytest.raises(StoreError, match="gone is gone: run the job again"):
        FeatureStore.open(tmp_path)
