"""A folder of a bucket is listed as the same folder on a disk is, in as many requests as it has thousands of keys."""

from __future__ import annotations

import os

import pytest

from stages.dataset import DatasetError, FolderDataset, SplitFolders
from stages.manifest import read_manifest
from storage.blobs import read_blobs
from storage.files import list_folders, write_atomic


@pytest.fixture
def photos(bucket, images):
    """`photos(*names)` puts files of these names into a bucket and a folder; the root in each."""

    def write(*names: str) -> tuple[str, str]:
        for name in names:
            write_atomic(f"{bucket}/my photos/{name}", name.encode(), run="r")
        return f"{bucket}/my photos", str(images(*names))

    return write


def rows(root: str, **settings) -> list[tuple[str, str, str | None]]:
    if isinstance(settings.get("splits"), dict):
        settings["splits"] = SplitFolders(**settings["splits"])
    table, _ = read_manifest(FolderDataset(path=root, **settings))
    assert table["uri"].to_pylist() == [f"{root}/{name}" for name in table["id"].to_pylist()]
    return [(row["id"], row["split"], row["class"]) for row in table.to_pylist()]


def test_a_bucket_has_the_images_and_labels_that_the_same_folder_has_on_a_disk(photos):
    names = ["wren/b #1?.jpg", "wren/deep/er/ñ.JPG", "blue jay/c.webp", "notes.txt", "wren/.hidden.png", ".x/d.png"]
    stores = [f"{place}tables/encode_text/0/{name}" for place in ("wren/runs/", "") for name in ("table.json", "t.png")]
    remote, local = photos(*names, *stores[:2])
    assert rows(remote) == rows(local)
    assert len(rows(remote)) == 3
    flat, beside = photos("top.png")
    for settings in ({}, {"splits": {"query": "."}}, {"splits": {"query": "wren", "support": "blue jay/"}}):
        assert rows(flat, **settings) == rows(beside, **settings)


def test_folders_that_look_like_splits_are_refused_as_on_a_disk_and_no_others(photos):
    remote, local = photos("test/wren/a.png", "train/wren/b.png", "Extra/c.txt")
    for root in (remote, local):
        with pytest.raises(DatasetError, match=r"look like splits.*splits: \{query: test, support: train\}"):
            rows(root)
    remote, local = photos("train/c.png", "other/d.png")
    for root in (remote, local):
        with pytest.raises(DatasetError, match="look like splits"):
            rows(root)


def test_a_class_that_is_called_like_a_split_is_a_class(photos):
    remote, local = photos("test/a.png", "wren/b.png")
    assert rows(remote) == rows(local) == [("test/a.png", "query", "test"), ("wren/b.png", "query", "wren")]


def test_a_listing_costs_a_request_and_a_changed_object_is_a_new_version(photos, asked):
    root, _ = photos("wren/a.png", "wren/b.png", "jay/c.png")
    dataset = FolderDataset(path=root)
    asked.clear()
    before = read_manifest(dataset)[0]
    assert len(asked) == 1
    assert read_manifest(dataset)[0]["key"] == before["key"]
    write_atomic(f"{root}/wren/a.png", b"other", run="r")
    after = read_manifest(dataset)[0]
    changed = [old != new for old, new in zip(before["version"], after["version"], strict=True)]
    assert dict(zip(after["id"].to_pylist(), changed, strict=True)) == {
        "jay/c.png": False, "wren/a.png": True, "wren/b.png": False,
    }  # fmt: skip
    assert read_blobs(after["uri"].to_pylist()) == [b"jay/c.png", b"other", b"wren/b.png"]


def test_versions_by_content_are_those_of_the_same_bytes_on_a_disk_and_read_once(photos, asked):
    remote, local = photos("wren/a.png", "wren/b.png")
    for name in ("a", "b"):
        with open(os.path.join(local, f"wren/{name}.png"), "wb") as file:
            file.write(f"wren/{name}.png".encode())
    keys = [
        read_manifest(FolderDataset(path=root, version="content"))[0]["key"].to_pylist() for root in (remote, local)
    ]
    assert keys[0] == keys[1]
    asked.clear()
    read_manifest(FolderDataset(path=remote, version="content"))
    assert not [line for line in asked if ".png" in line]


@pytest.mark.parametrize(
    ("root", "settings", "words"),
    [
        ("{bucket}/none", {}, "dataset.path: no images under s3://.*/none "),
        ("s3://absent/photos", {}, "dataset.path: .*no bucket 'absent'"),
        ("{bucket}/a", {"splits": {"query": "tset"}}, "dataset.splits.query: no images under s3://.*/a/tset"),
        ("{bucket}/a", {"splits": {"query": "../b"}}, "dataset.splits.query: ../b lies outside"),
    ],
)
def test_a_folder_that_is_not_there_is_told_with_its_key(bucket, root, settings, words):
    write_atomic(f"{bucket}/a/test/wren.png", b"", run="r")
    assert list_folders(bucket) == [f"{bucket}/a"]
    with pytest.raises(DatasetError, match=words):
        rows(root.format(bucket=bucket), **settings)
