"""Parquet files with images: rows are images, names come from the schema, and rows that were added cost only those."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.dataset import DatasetError, ParquetDataset, SplitNames
from stages.manifest import read_manifest
from storage.blobs import read_blobs


def write(path, columns: dict, names: list[str] | None = None, group: int = 2):
    """A Parquet file; `names` are put into its schema as Hugging Face's `datasets` does for a ClassLabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return path


def read(path, cache=None, **keys):
    return read_manifest(ParquetDataset(path=str(path), **keys), cache)


def rows(path, **keys):
    return [(row["id"], row["split"], row["class"]) for row in read(path, **keys)[0].to_pylist()]


BYTES = [b"one", b"two", b"three", b"four", b"five"]


def test_the_bytes_of_every_image_are_those_of_its_row(tmp_path):
    path = write(tmp_path / "it's a #1?.parquet", {"image": BYTES, "label": ["wren", "jay", "wren", None, ""]})
    table, classes = read(path)
    assert read_blobs(table["uri"].to_pylist()) == BYTES
    assert table["id"].to_pylist() == [f"it's a #1?.parquet/0000000{row}" for row in range(5)]
    assert table["class"].to_pylist() == ["wren", "jay", "wren", None, None]
    assert tuple(classes) == ("jay", "wren")


def test_a_data_set_as_hugging_face_stores_it_brings_the_names_of_its_classes(tmp_path):
    image = pa.array(
        [{"bytes": data, "path": "x.jpg"} for data in BYTES], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    write(
        tmp_path / "s/data/test-00000-of-00001.parquet",
        {"image": image, "label": [2, 0, 0, 2, -1]},
        ["wren", "jay", "blue_tit"],
    )
    table, classes = read(tmp_path / "s")
    assert tuple(classes) == ("wren", "jay", "blue_tit")
    assert table["class"].to_pylist() == ["blue_tit", "wren", "wren", "blue_tit", None]
    assert read_blobs(table["uri"].to_pylist()) == BYTES
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert read(tmp_path / "s", classes=str(tmp_path / "names.txt"))[0]["class"].to_pylist() == [
        "c",
        "a",
        "a",
        "c",
        None,
    ]


def test_numbered_labels_are_places_in_a_list_of_names(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": BYTES[:2], "label": pa.array([1, 0], pa.int8())})
    (tmp_path / "names.txt").write_text("wren\njay\n")
    assert [name for *_, name in rows(path, classes=str(tmp_path / "names.txt"))] == ["jay", "wren"]


def test_columns_may_be_called_otherwise_and_ids_be_given(tmp_path):
    columns = {"photo": BYTES[:2], "species": ["wren", "jay"], "key": [7, 3], "fold": ["a", "b"], "label": ["-", "-"]}
    path = write(tmp_path / "a.parquet", columns)
    found = rows(
        path, image="photo", label="species", id="key", split="fold", splits=SplitNames(query="b", support="a")
    )
    assert found == [("3", "query", "jay"), ("7", "support", "wren")]


def test_a_split_column_is_understood_by_the_usual_names_or_by_those_given(tmp_path):
    columns = {"image": BYTES[:3], "label": ["wren"] * 3, "id": ["a", "b", "c"], "split": ["train", "valid", "Test"]}
    path = write(tmp_path / "a.parquet", columns)
    assert [split for _, split, _ in rows(path)] == ["support", "validation", "query"]
    assert rows(path, splits=SplitNames(query=["valid", "train"])) == [("a", "query", "wren"), ("b", "query", "wren")]
    with pytest.raises(DatasetError, match=r"train is named for both support and query"):
        read(path, splits=SplitNames(query="train", support="train"))
    with pytest.raises(
        DatasetError, match=r"splits\.query: no row of .* 'nothing'; there are 'Test', 'train', 'valid'"
    ):
        read(path, splits=SplitNames(query="nothing"))
    with pytest.raises(DatasetError, match=r"splits\.support: no row of .*a\.parquet has the split 'trian'"):
        read(path, splits=SplitNames(query="Test", support=["train", "trian"]))
    write(path, columns | {"split": ["train", None, "fold1"]})
    with pytest.raises(DatasetError, match=r"has the split None; say which is which"):
        read(path)


def test_splits_of_a_column_of_numbers_are_named_by_them(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": BYTES[:2], "label": ["wren"] * 2, "split": [0, 1]})
    assert [split for _, split, _ in rows(path, splits=SplitNames(query="1", support="0"))] == ["support", "query"]
    with pytest.raises(DatasetError, match=r"has the split '0'; say which is which"):
        read(path)


@pytest.mark.parametrize("column", ["split", "label", "id"])
@pytest.mark.parametrize("having", ["a", "b"])
def test_a_column_that_some_files_lack_is_told_before_training_rows_are_taken_for_queries(tmp_path, column, having):
    for name in ("a", "b"):
        columns = {"image": BYTES[:1], "label": ["wren"], "id": [name], "split": ["test"]}
        write(tmp_path / f"s/{name}.parquet", {key: columns[key] for key in columns if key != column or name == having})
    with pytest.raises(
        DatasetError, match=rf"dataset\.{column}: .*{having}\.parquet has a column '{column}' and .*none"
    ):
        read(tmp_path / "s")


def test_splits_without_a_column_are_patterns_of_files(tmp_path):
    for name in ("test-0", "train-0"):
        write(tmp_path / f"s/{name}.parquet", {"image": BYTES[:1], "label": ["wren"]})
    with pytest.raises(DatasetError, match=r"splits: \{query: 'test\*', support: 'train\*'\}"):
        read(tmp_path / "s")
    assert rows(tmp_path / "s", splits=SplitNames(query="test*", support="train*")) == [
        ("test-0.parquet/00000000", "query", "wren"),
        ("train-0.parquet/00000000", "support", "wren"),
    ]


def test_rows_that_are_added_leave_the_keys_of_others_where_versions_are_of_content(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": BYTES[:3], "label": ["wren"] * 3})
    by_content, by_time = read(path, version="content")[0], read(path)[0]
    write(path, {"image": [*BYTES[:2], b"changed", *BYTES[3:]], "label": ["wren"] * 5}, group=3)
    again = read(path, version="content")[0]
    assert again["key"].to_pylist()[:2] == by_content["key"].to_pylist()[:2]
    assert again["key"].to_pylist()[2] != by_content["key"].to_pylist()[2]
    assert len(set(again["version"].to_pylist())) == 5
    assert set(read(path)[0]["key"].to_pylist()).isdisjoint(by_time["key"].to_pylist())


def test_hashes_are_found_once_and_listing_by_time_reads_no_image(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", {"image": BYTES[:3], "label": ["wren"] * 3})
    first = read(path, str(tmp_path / "listings"), version="content")[0]
    monkeypatch.setattr("stages.datasets.kept._in_this_process", {})
    monkeypatch.setattr("storage.blobs.read_blobs", None)
    assert read(path, str(tmp_path / "listings"), version="content")[0].equals(first)
    assert len(read(path)[0]) == 3


@pytest.mark.parametrize(
    ("columns", "keys", "words"),
    [
        ({"image": BYTES[:1]}, {"image": "photo"}, r"dataset\.image: .*a\.parquet has no column 'photo'; it has image"),
        ({"image": BYTES[:1]}, {"label": "species"}, r"dataset\.label: .*no column 'species'"),
        ({"image": BYTES[:1]}, {}, r"dataset\.classes: .*have no labels"),
        ({"image": ["a.jpg"]}, {}, r"dataset\.image: the column 'image' .*holds string, not bytes; .*`table`"),
        ({"image": BYTES[:1], "label": [0.5]}, {}, r"dataset\.label: row 0 .*0\.5"),
        ({"image": BYTES[:1], "label": [True]}, {}, r"dataset\.label: row 0 .*True"),
        ({"image": BYTES[:1], "label": ["x"], "id": [None]}, {}, r"dataset\.id: row 0 .*None"),
        ({"image": BYTES[:2], "label": ["x", "x"], "id": ["a", "a"]}, {}, r"has 2 images with the id 'a'"),
    ],
)
def test_columns_that_do_not_fit_are_told(tmp_path, columns, keys, words):
    with pytest.raises(DatasetError, match=words):
        read(write(tmp_path / "a.parquet", columns), **keys)


def test_files_that_contradict_one_another_or_are_broken_are_told(tmp_path):
    with pytest.raises(DatasetError, match=r"row 0 .*has the label 3, and the file names 2 classes"):
        read(write(tmp_path / "one.parquet", {"image": BYTES[:1], "label": [3]}, ["wren", "jay"]))
    write(tmp_path / "s/a.parquet", {"image": BYTES[:1], "label": [0]}, ["wren"])
    write(tmp_path / "s/b.parquet", {"image": BYTES[:1], "label": [0]}, ["jay"])
    with pytest.raises(DatasetError, match=r"name different classes"):
        read(tmp_path / "s")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"bad\.parquet is not a Parquet file"):
        read(tmp_path / "bad.parquet")
    with pytest.raises(DatasetError, match=r"dataset\.path: no file .*none"):
        read(tmp_path / "none")
