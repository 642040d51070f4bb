from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import lance
from storage.files import remove_folder
from storage.lance import Projection
from storage.lance_filter import where_equal
from storage.markers import marker, write_marker
from storage.schemas import crops_schema, descriptors_schema, fixed_list

SCHEMA = descriptors_schema(3, {"model": "tiny", "weights": "w", "fingerprint": "abc"})
NASTY = ["O'Brien's finch", '"; DROP', "'; DROP TABLE descriptors; --", "a\\'b", "100%_`ü`\n", "''", ""]


def rows(ids: list[str], vectors: list[list[float]], classes: list[str | None] | None = None) -> pa.Table:
    columns = {
        "id": pa.array(ids, pa.string()),
        "class": pa.array(classes or ["finch"] * len(ids), pa.string()),
        "set": pa.array(["marks"] * len(ids), pa.string()),
        "number": pa.array(range(len(ids)), pa.int32()),
        "text": pa.array([f"text of {name}" for name in ids], pa.string()),
        "vector": fixed_list(np.array(vectors, np.float16).reshape(-1, 3)),
    }
    return pa.table(columns)


def ids_of(database: Projection) -> set[str]:
    return set(database.ids("descriptors").to_pylist())


@pytest.fixture(params=["disk", "s3"])
def database(request, tmp_path) -> Projection:
    store = str(tmp_path) if request.param == "disk" else request.getfixturevalue("bucket")
    return Projection(f"{store}/lance")


def test_a_table_is_made_with_its_schema_and_metadata_even_without_rows(database):
    assert database.tables() == []
    assert ids_of(database) == set()
    database.upsert("descriptors", SCHEMA, rows([], []))
    assert database.tables() == ["descriptors"]
    assert ids_of(database) == set()
    assert database.search("descriptors", [1, 0, 0], k=3) == []
    found = Projection(database.uri)._database.open_table("descriptors").schema
    assert found.equals(SCHEMA, check_metadata=True)


def test_an_upsert_inserts_new_ids_and_replaces_old_ones(database):
    database.upsert("descriptors", SCHEMA, rows(["a", "b"], [[1, 0, 0], [0, 1, 0]]))
    database.upsert("descriptors", SCHEMA, rows(["b", "c"], [[0, 0, 1], [0, 1, 0]]))
    assert ids_of(database) == {"a", "b", "c"}
    assert [hit["id"] for hit in database.search("descriptors", [0, 0, 1], k=1)] == ["b"]
    assert len(database.search("descriptors", [1, 1, 1], k=100)) == 3


def test_an_upsert_of_many_batches_holds_every_row_once(database, monkeypatch):
    monkeypatch.setattr(lance, "UPSERT_ROWS", 7)
    ids = [f"{index:02d}" for index in range(20)]
    for _ in range(2):
        database.upsert("descriptors", SCHEMA, rows(ids, [[1, 0, 0]] * 20))
    assert sorted(hit["id"] for hit in database.search("descriptors", [1, 0, 0], k=100)) == ids


def test_rows_that_are_known_to_be_new_are_appended_with_the_same_checks(database, monkeypatch):
    monkeypatch.setattr(lance, "UPSERT_ROWS", 2)
    write_marker(database.uri, "descriptors", "d1")
    database.append("descriptors", SCHEMA, rows(["a", "b", "c"], [[1, 0, 0]] * 3))
    assert marker(database.uri, "descriptors") is None
    database.append("descriptors", SCHEMA, rows(["d"], [[1, 0, 0]]))
    assert sorted(database.ids("descriptors").to_pylist()) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="null or repeated"):
        database.append("descriptors", SCHEMA, rows(["e", "e"], [[1, 0, 0]] * 2))


def test_a_search_gives_cosines_best_first_and_every_column_but_the_vector(database):
    database.upsert("descriptors", SCHEMA, rows(["a", "b", "c"], [[3, 0, 0], [3, 4, 0], [-2, 0, 0]]))
    hits = database.search("descriptors", np.array([2.0, 0.0, 0.0], np.float32), k=3)
    assert [hit["id"] for hit in hits] == ["a", "b", "c"]
    assert [hit["similarity"] for hit in hits] == pytest.approx([1, 0.6, -1], abs=1e-3)
    assert set(hits[0]) == {"id", "class", "set", "number", "text", "similarity"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_search_agrees_with_the_plain_formula_for_any_dtype_and_length_of_query(database, dtype):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(50, 3)).astype(np.float16)
    database.upsert("descriptors", SCHEMA, rows([str(index) for index in range(50)], vectors.tolist()))
    query = (random.normal(size=3) * 1000).astype(dtype)
    exact = vectors.astype(np.float64)
    exact = exact @ query.astype(np.float64) / np.linalg.norm(exact, axis=1) / np.linalg.norm(query.astype(np.float64))
    hits = database.search("descriptors", query, k=50)
    assert [hit["similarity"] for hit in hits] == pytest.approx([exact[int(hit["id"])] for hit in hits], abs=1e-3)
    assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)
    tiny = database.search("descriptors", query.astype(np.float64) * 1e-9, k=50)
    assert [hit["id"] for hit in tiny] == [hit["id"] for hit in hits]


def test_a_filter_finds_exactly_the_rows_of_a_class_whatever_its_name_holds(database):
    ids = [str(index) for index in range(len(NASTY))]
    database.upsert("descriptors", SCHEMA, rows([*ids, "none"], [[1, 0, 0]] * (len(NASTY) + 1), [*NASTY, None]))
    for name, wanted in zip([*NASTY, None], [*ids, "none"], strict=True):
        hits = database.search("descriptors", [1, 0, 0], k=10, where=where_equal({"class": name, "set": "marks"}))
        assert [hit["id"] for hit in hits] == [wanted]
    assert database.search("descriptors", [1, 0, 0], k=10, where=where_equal({"class": NASTY[0], "number": 5})) == []
    assert database.tables() == ["descriptors"]


def test_a_filter_is_applied_before_the_best_are_taken(database):
    database.upsert("descriptors", SCHEMA, rows(["a", "b"], [[1, 0, 0], [0, 1, 0]], ["near", "far"]))
    assert [
        hit["id"] for hit in database.search("descriptors", [1, 0, 0], k=1, where=where_equal({"class": "far"}))
    ] == ["b"]


@given(st.text())
def test_a_quoted_value_ends_where_the_filter_ends(value):
    sql = where_equal({"class": value}).sql
    assert sql.startswith("`class` = '")
    assert sql.endswith("'")
    inside = sql[len("`class` = '") : -1]
    assert inside.replace("''", "").count("'") == 0
    assert inside.replace("''", "'") == value


def test_a_filter_refuses_what_it_cannot_make_safe():
    assert where_equal({}) is None
    with pytest.raises(ValueError, match="no column name"):
        where_equal({"class` = '' OR true --": "x"})
    for value in (True, 1.5, ["a"]):
        with pytest.raises(TypeError, match="str, an int or None"):
            where_equal({"number": value})


def test_rows_are_deleted_by_their_ids_and_counted(database, monkeypatch):
    monkeypatch.setattr(lance, "DELETE_ROWS", 4)
    assert database.delete("descriptors", pa.array(["a"])) == 0
    ids = [f"O'Brien/{index}'); --" for index in range(10)]
    database.upsert("descriptors", SCHEMA, rows(ids, [[1, 0, 0]] * 10))
    assert database.delete("descriptors", pa.array([], pa.string())) == 0
    assert database.delete("descriptors", pa.array([*ids[4:], "not here"])) == 6
    assert ids_of(database) == set(ids[:4])
    assert {hit["text"] for hit in database.search("descriptors", [1, 0, 0], k=9)} == {f"text of {i}" for i in ids[:4]}
    assert database.delete("descriptors", pa.chunked_array([ids])) == 4
    assert ids_of(database) == set()


def test_a_table_is_dropped_with_its_marker_and_one_that_is_not_there_is_no_matter(database):
    database.drop("descriptors")
    database.upsert("descriptors", SCHEMA, rows(["a"], [[1, 0, 0]]))
    write_marker(database.uri, "descriptors", "d1")
    database.drop("descriptors")
    assert database.tables() == []
    assert marker(database.uri, "descriptors") is None


def test_chosen_columns_of_chosen_rows_are_read(database):
    assert (database.described("descriptors").num_rows, database.count("descriptors")) == (0, 0)
    database.upsert("descriptors", SCHEMA, rows(["a", "b"], [[1, 0, 0], [0, 1, 0]], ["near", "far"]))
    assert database.count("descriptors") == 2
    assert database.described("descriptors").column_names == ["id", "class", "set", "number", "text"]
    read = database.described("descriptors", ["id", "vector"], where_equal({"class": "far"}))
    assert read.to_pylist() == [{"id": "b", "vector": [0, 1, 0]}]
    assert database.schema("descriptors").equals(SCHEMA, check_metadata=True)
    with pytest.raises(KeyError, match="no columns"):
        database.described("descriptors", ["klass"])
    with pytest.raises(LookupError, match="no table 'crops'"):
        database.schema("crops")


def test_rows_under_a_similarity_are_left_out(database):
    database.upsert("descriptors", SCHEMA, rows(["a", "b", "c"], [[1, 0, 0], [3, 4, 0], [-1, 0, 0]]))
    assert [hit["id"] for hit in database.search("descriptors", [1, 0, 0], k=3, at_least=0.5)] == ["a", "b"]
    assert database.search("descriptors", [0, 0, 1], k=3, at_least=0.5) == []


def test_rows_of_another_model_or_shape_never_mix_with_those_of_a_table(database):
    database.upsert("descriptors", SCHEMA, rows(["a"], [[1, 0, 0]]))
    for other in (SCHEMA.with_metadata({"weights": "other", "fingerprint": "abc"}), SCHEMA.with_metadata(None)):
        with pytest.raises(ValueError, match="was made as"):
            database.upsert("descriptors", other, rows(["b"], [[1, 0, 0]]))
    with pytest.raises(ValueError, match="do not fit"):
        database.upsert("descriptors", descriptors_schema(4), rows(["b"], [[1, 0, 0]]))
    assert ids_of(database) == {"a"}


def test_the_same_weights_under_another_name_are_the_same_model(database):
    database.upsert("descriptors", SCHEMA, rows(["a"], [[1, 0, 0]]))
    moved = SCHEMA.with_metadata({"model": "moved", "weights": "w", "fingerprint": "abc"})
    database.upsert("descriptors", moved, rows(["b"], [[0, 1, 0]]))
    assert ids_of(database) == {"a", "b"}
    assert database.schema("descriptors").metadata[b"model"] == b"tiny"


def test_rows_without_one_id_each_or_with_other_columns_are_refused(database):
    with pytest.raises(ValueError, match="null or repeated"):
        database.upsert("descriptors", SCHEMA, rows(["a", "a"], [[1, 0, 0]] * 2))
    with pytest.raises(ValueError, match="null or repeated"):
        database.upsert("descriptors", SCHEMA, rows(["a", None], [[1, 0, 0]] * 2))
    with pytest.raises(ValueError, match="need the columns"):
        database.upsert("descriptors", SCHEMA, rows(["a"], [[1, 0, 0]]).drop_columns("text"))
    assert database.tables() == []


def test_a_search_that_cannot_be_answered_says_why(database):
    with pytest.raises(LookupError, match="no table 'crops'"):
        database.search("crops", [1, 0, 0], k=1)
    database.upsert("descriptors", SCHEMA, rows(["a"], [[1, 0, 0]]))
    with pytest.raises(ValueError, match="vectors of 3"):
        database.search("descriptors", [1, 0], k=1)
    for query in ([0, 0, 0], [float("nan"), 0, 0]):
        with pytest.raises(ValueError, match="no direction"):
            database.search("descriptors", query, k=1)


def test_a_reader_that_was_open_before_sees_what_is_committed_later(database):
    reader = Projection(database.uri)
    database.upsert("descriptors", SCHEMA, rows(["a"], [[1, 0, 0]]))
    assert ids_of(reader) == {"a"}
    database.upsert("descriptors", SCHEMA, rows(["b"], [[1, 0, 0]]))
    assert ids_of(reader) == {"a", "b"}


def test_crops_come_back_with_their_boxes(database):
    schema = crops_schema(3)
    columns = {field.name: pa.array(["x"]) for field in schema if field.type == pa.string()}
    columns |= {"number": pa.array([4], pa.int32()), "box": fixed_list(np.array([[1, 2, 30, 40]], np.int32))}
    columns |= {"vector": fixed_list(np.array([[1, 0, 0]], np.float16))}
    database.upsert("crops", schema, pa.table(columns))
    (hit,) = database.search("crops", [1, 0, 0], k=5)
    assert (hit["box"], hit["number"], hit["similarity"]) == ([1, 2, 30, 40], 4, 1.0)


def test_a_marker_is_gone_as_soon_as_its_table_changes_and_others_keep_theirs(database):
    database.upsert("descriptors", SCHEMA, rows(["a", "b"], [[1, 0, 0]] * 2))
    for change in (
        lambda: database.upsert("descriptors", SCHEMA, rows(["c"], [[1, 0, 0]])),
        lambda: database.delete("descriptors", pa.array(["a"])),
    ):
        write_marker(database.uri, "descriptors", "d1")
        write_marker(database.uri, "images", "d2")
        change()
        assert marker(database.uri, "descriptors") is None
        assert marker(database.uri, "images") == "d2"
    write_marker(database.uri, "descriptors", "d3")
    database.delete("descriptors", pa.array([], pa.string()))
    assert marker(database.uri, "descriptors") == "d3"
    assert database.tables() == ["descriptors"]


def test_a_table_whose_removal_was_cut_short_is_none_and_is_made_anew(database):
    database.upsert("descriptors", SCHEMA, rows(["a"], [[1, 0, 0]]))
    table = f"{database.uri}/descriptors.lance"
    remove_folder(f"{table}/_versions", run="r")
    assert database.tables() == ["descriptors"]
    assert (ids_of(database), database.described("descriptors").num_rows) == (set(), 0)
    with pytest.raises(LookupError):
        database.search("descriptors", [1, 0, 0], k=1)
    database.upsert("descriptors", SCHEMA, rows(["b"], [[1, 0, 0]]))
    assert ids_of(database) == {"b"}
