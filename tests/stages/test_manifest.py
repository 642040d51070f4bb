"""The manifest: the same columns and promises whatever kind of data set it is made of."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from stages.dataset import DatasetError, DatasetSettings, FolderDataset, TableDataset
from stages.manifest import SCHEMA, read_manifest

ANY = TypeAdapter(DatasetSettings)


def test_a_data_set_without_a_kind_is_a_folder():
    assert ANY.validate_python({"path": "p"}) == FolderDataset(path="p")
    assert ANY.validate_python({"kind": "table", "path": "p"}) == TableDataset(path="p")


@pytest.mark.parametrize("settings", [{"kind": "floder", "path": "p"}, {"path": "p", "uri": "x"}, {}, "photos"])
def test_an_unknown_kind_and_a_key_of_another_kind_are_refused(settings):
    with pytest.raises(ValidationError):
        ANY.validate_python(settings)


def test_the_manifest_is_sorted_by_id_and_has_its_schema(tmp_path):
    (tmp_path / "set.csv").write_text("id,uri,label\nb,/y.png,wren\nZ,/x.png,jay\né,/z.png,\na,/w.png,wren\n")
    table, classes = read_manifest(TableDataset(path=str(tmp_path / "set.csv")))
    assert table.schema == SCHEMA
    assert table["id"].to_pylist() == ["Z", "a", "b", "é"]
    assert table["class"].to_pylist() == ["jay", "wren", "wren", None]
    assert table["key"].to_pylist()[0] == f"Z@{table['version'][0]}"
    assert tuple(classes) == ("jay", "wren")


def test_an_id_that_two_images_of_a_split_have_is_refused(tmp_path):
    (tmp_path / "set.csv").write_text("id,uri,label\na,/x.png,jay\na,/y.png,jay\n")
    with pytest.raises(DatasetError, match=r"set\.csv has 2 images with the id 'a'"):
        read_manifest(TableDataset(path=str(tmp_path / "set.csv")))


def test_listing_any_kind_imports_neither_torch_nor_ray_nor_lancedb(tmp_path):
    code = (
        "import sys, stages.manifest, storage.blobs\n"
        "from stages.datasets import parquet, table, torchvision, webdataset\n"
        "print(sorted({'torch', 'ray', 'lancedb', 'torchvision', 'scipy', 'fsspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
