"""Indexes and versions of LanceDB tables: what they cover, what a search through them finds, what stays."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from storage import lance_index, lance_versions
from storage.lance import Projection
from storage.lance_filter import where_equal
from storage.schemas import descriptors_schema, fixed_list

D, CLUSTERS = 16, 30
SCHEMA = descriptors_schema(D)


def clustered(count: int) -> np.ndarray:
    random = np.random.default_rng(count)
    centres = random.normal(size=(CLUSTERS, D))
    vectors = centres[np.arange(count) % CLUSTERS] + 0.3 * random.normal(size=(count, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def rows(vectors: np.ndarray, first: int = 0) -> pa.Table:
    count = len(vectors)
    numbers = pa.array(range(first, first + count), pa.int32())
    columns = {"id": numbers.cast(pa.string()), "number": numbers, "vector": fixed_list(vectors)}
    columns |= {"class": pa.array([f"class {number % CLUSTERS}" for number in range(count)])}
    return pa.table(columns | dict.fromkeys(("set", "text"), pa.array(["x"] * count)))


@pytest.fixture
def database(tmp_path) -> Projection:
    return Projection(str(tmp_path / "lance"))


def opened(database: Projection):
    """The table as a plain LanceDB client sees it."""
    return lancedb.connect(database.uri, read_consistency_interval=timedelta(0)).open_table("descriptors")


def found(database: Projection, query: np.ndarray, **how) -> list[str]:
    return [hit["id"] for hit in database.search("descriptors", query.tolist(), k=10, **how)]


def test_an_index_covers_all_rows_and_finds_nearly_all_that_a_full_search_finds(database, monkeypatch):
    vectors = clustered(3000)
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 1000)
    monkeypatch.setattr(lance_index, "PROBED_ROWS", 500)
    database.upsert("descriptors", SCHEMA, rows(vectors))
    assert database.build_index("descriptors") == 0
    index = lance_index.vector_index(opened(database))
    assert index == ("vector_ivf108", 108, 0)
    (stats,) = [opened(database).index_stats(one.name) for one in opened(database).list_indices()]
    assert (stats.index_type, stats.distance_type, stats.num_indexed_rows) == ("IVF_FLAT", "cosine", 3000)
    queries = vectors[::100] + 0.05
    assert index.probes(3000, 3000) == 18
    shared = [len(set(found(database, query)) & set(found(database, query, exact=True))) for query in queries]
    assert np.mean(shared) / 10 >= 0.95


def test_a_filter_that_leaves_few_rows_has_them_all_compared(database, monkeypatch):
    monkeypatch.setattr(lance_index, "PROBED_ROWS", 100)
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 1000)
    vectors = clustered(3000)
    database.upsert("descriptors", SCHEMA, rows(vectors))
    database.build_index("descriptors")
    far = where_equal({"class": "class 7"})
    for query in vectors[:30]:
        assert found(database, query, where=far) == found(database, query, where=far, exact=True)
    assert len(database.search("descriptors", vectors[0].tolist(), k=2000)) < 2000, "of all rows a few partitions"
    assert len(database.search("descriptors", vectors[0].tolist(), k=2000, exact=True)) == 2000
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 100)
    assert {int(one) % CLUSTERS for one in found(database, vectors[0], where=far)} <= {7}


def test_new_rows_are_found_at_once_and_covered_by_the_next_build(database):
    vectors = clustered(1200)
    database.upsert("descriptors", SCHEMA, rows(vectors[:1000]))
    database.build_index("descriptors")
    database.upsert("descriptors", SCHEMA, rows(vectors[1000:], first=1000))
    assert lance_index.vector_index(opened(database)).uncovered == 200
    assert found(database, vectors[1100])[0] == "1100"
    assert database.build_index("descriptors") == 0
    assert lance_index.vector_index(opened(database)) == ("vector_ivf62", 62, 0)
    assert found(database, vectors[1100])[0] == "1100"


def test_an_index_for_another_size_of_table_is_made_anew_and_can_be_dropped(database):
    database.upsert("descriptors", SCHEMA, rows(clustered(300)))
    database.build_index("descriptors")
    assert lance_index.vector_index(opened(database)).partitions == 34
    database.upsert("descriptors", SCHEMA, rows(clustered(3000)))
    assert database.build_index("descriptors") == 0
    assert lance_index.vector_index(opened(database)).partitions == 108
    for _ in range(2):
        database.drop_index("descriptors")
        assert lance_index.vector_index(opened(database)) is None
    assert len(found(database, clustered(3000)[0])) == 10


@pytest.mark.parametrize(("zeros", "uncovered"), [(7, 0), (490, 500), (500, 500)])
def test_zero_vectors_break_no_index_and_are_never_found(database, zeros, uncovered):
    vectors = clustered(500)
    vectors[:zeros] = 0
    database.upsert("descriptors", SCHEMA, rows(vectors))
    assert database.build_index("descriptors") == uncovered, "too few others to make partitions of"
    hits = database.search("descriptors", [1.0] * D, k=500)
    assert len(hits) == 500 - zeros
    assert min([int(hit["id"]) for hit in hits], default=zeros) == zeros


def test_partitions_and_probes_follow_the_number_of_rows():
    assert [lance_index.partitions_of(rows) for rows in (1, 50_000, 144_000, 10**9)] == [16, 446, 758, 8192]
    index = lance_index.VectorIndex("v", 1000, 0)
    assert index.probes(50_000, 50_000) == 480
    assert index.probes(200_000, 200_000) == 120
    assert index.probes(1_000_000, 1_000_000) == 84, "a twelfth"
    assert index.probes(1_000_000, 100_000) == 834
    assert index.probes(1_000_000, 60_000) == 1000


def test_a_large_table_has_an_index_of_its_ids_which_upserts_keep_up(database, monkeypatch):
    monkeypatch.setattr(lance_index, "KEYED_ROWS", 100)
    vectors = clustered(450)
    for start in range(0, 450, 50):
        database.upsert("descriptors", SCHEMA, rows(vectors[start : start + 50], first=start))
    (index,) = opened(database).list_indices()
    assert (index.index_type, index.columns) == ("BTree", ["id"])
    assert opened(database).index_stats(index.name).num_unindexed_rows == 50
    database.upsert("descriptors", SCHEMA, rows(-vectors))
    assert opened(database).count_rows() == 450
    database.merge_files("descriptors")
    assert opened(database).index_stats(index.name).num_unindexed_rows == 0
    assert found(database, -vectors[3])[0] == "3"
    assert database.delete("descriptors", pa.array(["3", "4", "x"])) == 2


def test_what_a_run_left_is_read_again_by_its_tag_until_ten_others_have_come(database, monkeypatch):
    monkeypatch.setattr(lance_versions, "KEPT_TAGS", 3)
    vectors = clustered(50)
    for run in range(5):
        database.upsert("descriptors", SCHEMA, rows(vectors[: 10 * run + 10]))
        database.merge_files("descriptors")
        database.tag_run(f"2025_{run}")
    database.tag_run("2025_4")
    table = opened(database)
    assert lance_versions.tagged_runs(table) == ["2025_2", "2025_3", "2025_4"]
    for run in (2, 3, 4):
        table.checkout(f"run-2025_{run}")
        assert table.count_rows() == 10 * run + 10


def test_versions_older_than_every_tag_are_removed_with_their_files(database, monkeypatch):
    margin = 1.5
    monkeypatch.setattr(lance_versions, "READERS", timedelta(seconds=margin))
    monkeypatch.setattr(lance_versions, "KEPT_TAGS", 1)
    vectors = clustered(20)
    for _ in range(4):
        database.upsert("descriptors", SCHEMA, rows(vectors))
    database.tag_run("old")
    before = time.monotonic()
    database.merge_files("descriptors")
    assert len(opened(database).list_versions()) >= 5, "all are too young"
    while time.monotonic() - before < 1.2 * margin:
        time.sleep(0.1)
    database.upsert("descriptors", SCHEMA, rows(vectors))
    database.tag_run("new")
    kept = opened(database).version
    database.merge_files("descriptors")
    assert min(version["version"] for version in opened(database).list_versions()) >= kept
    assert len(list(Path(database.uri).glob("descriptors.lance/data/*"))) <= 2
    table = opened(database)
    table.checkout("run-new")
    assert table.count_rows() == 20
