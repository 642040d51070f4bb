"""A folder of images: every image once, named by its path inside the data set, whatever the folder looks like."""

from __future__ import annotations

import hashlib
import os
import shutil
import tracemalloc

import pytest

from stages.dataset import DatasetError, FolderDataset, SplitFolders
from stages.datasets.folder import proposed_splits
from stages.manifest import SCHEMA, read_manifest


def read(folder, **settings):
    if isinstance(settings.get("splits"), dict):
        settings["splits"] = SplitFolders(**settings["splits"])
    return read_manifest(FolderDataset(path=str(folder), **settings))


def rows(folder, **settings) -> list[tuple[str, str, str | None]]:
    return [(row["id"], row["split"], row["class"]) for row in read(folder, **settings)[0].to_pylist()]


def test_a_folder_of_class_folders_is_labelled_by_them(images):
    folder = images("wren/b.jpg", "wren/a.JPG", "blue jay/c.webp")
    table, classes = read(folder)
    assert table.schema == SCHEMA
    assert tuple(classes) == ("blue jay", "wren")
    assert rows(folder) == [
        ("blue jay/c.webp", "query", "blue jay"),
        ("wren/a.JPG", "query", "wren"),
        ("wren/b.jpg", "query", "wren"),
    ]
    (row,) = [row for row in table.to_pylist() if row["id"] == "wren/b.jpg"]
    status = (folder / "wren/b.jpg").stat()
    assert row["version"] == f"{status.st_size}-{status.st_mtime_ns}"
    assert row["key"] == f"wren/b.jpg@{row['version']}"
    assert row["uri"] == str(folder / "wren/b.jpg")


def test_all_common_image_files_are_taken_and_no_others(images):
    suffixes = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif", "PNG")
    names = [f"x/{number}.{suffix}" for number, suffix in enumerate(suffixes)]
    folder = images(*names, "x/notes.txt", "x/labels.csv", "x/raw.cr2", "x/noend", "README.md")
    assert [identity for identity, _, _ in rows(folder)] == names


def test_images_deeper_down_belong_to_the_first_folder(images):
    assert rows(images("wren/2024/may/a.png", "wren/b.png")) == [
        ("wren/2024/may/a.png", "query", "wren"),
        ("wren/b.png", "query", "wren"),
    ]


def test_hidden_files_and_folders_are_left_out(images):
    folder = images("wren/a.png", "wren/.b.png", ".cache/c.png", "wren/.thumbs/d.png", ".e.png")
    assert rows(folder) == [("wren/a.png", "query", "wren")]


def test_a_flat_folder_has_no_labels_and_its_classes_come_from_a_file_in_its_order(images, tmp_path):
    folder = images("b.png", "a.png")
    (tmp_path / "names.txt").write_text("wren\n\n  blue jay \n", encoding="utf-8-sig")
    table, classes = read(folder, classes=str(tmp_path / "names.txt"))
    assert tuple(classes) == ("wren", "blue jay")
    assert table["class"].to_pylist() == [None, None]


def test_a_flat_folder_without_class_names_is_refused(images):
    with pytest.raises(DatasetError, match=r"dataset\.classes: .*no class folders.*one a line"):
        read(images("a.png"))


def test_images_beside_class_folders_are_unlabelled(images):
    assert rows(images("a.png", "wren/b.png")) == [("a.png", "query", None), ("wren/b.png", "query", "wren")]


def test_splits_are_sub_folders_and_ids_keep_their_names(images):
    folder = images("test/wren/a.png", "train/wren/a.png", "train/jay/b.png", "val/jay/c.png", "extra/jay/d.png")
    splits = {"query": "test", "support": "train", "validation": "val"}
    assert rows(folder, splits=splits) == [
        ("test/wren/a.png", "query", "wren"),
        ("train/jay/b.png", "support", "jay"),
        ("train/wren/a.png", "support", "wren"),
        ("val/jay/c.png", "validation", "jay"),
    ]
    assert tuple(read(folder, splits=splits)[1]) == ("jay", "wren")


def test_a_split_that_is_no_folder_of_the_data_set_is_refused(images, tmp_path):
    folder = images("test/wren/a.png")
    (tmp_path / "other").mkdir()
    with pytest.raises(DatasetError, match=r"dataset\.splits\.support: no folder .*train"):
        read(folder, splits={"query": "test", "support": "train"})
    for outside in ("../other", str(tmp_path / "other")):
        with pytest.raises(DatasetError, match=r"dataset\.splits\.query: .* lies outside"):
            read(folder, splits={"query": outside})


@pytest.mark.parametrize("support", ["test", "."])
def test_an_image_in_two_splits_is_refused(images, support):
    with pytest.raises(DatasetError, match=r"dataset\.splits: test/wren/a\.png lies in both support and query"):
        read(images("test/wren/a.png"), splits={"query": "test", "support": support})


def test_folders_that_look_like_splits_are_not_taken_for_classes(images):
    with pytest.raises(DatasetError, match=r"dataset\.splits: .*test, train .*look like splits"):
        read(images("test/wren/a.png", "train/wren/b.png", ".git/c.png"))


LOOKS = [
    (["test/wren/a.png", "train/wren/b.png"], {"query": "test", "support": "train"}),
    (
        ["Test/wren/a.png", "Train/wren/b.png", "valid/c.png"],
        {"query": "Test", "validation": "valid", "support": "Train"},
    ),
    (["test/wren/a.png", "train/wren/b.png", "masks/wren/a.png"], {"query": "test", "support": "train"}),
    (["test/wren/a.png", "annotations/wren/a.xml"], {"query": "test"}),
    (["val/wren/a.png", "train/wren/b.png", "runs/notes.txt"], {"query": "val", "support": "train"}),
    (["train/wren/a.png"], {"query": "train"}),
    (["val/wren/a.png", "validation/wren/b.png"], {"query": "val"}),
    (["train/a.png", "bus/b.png"], {}),
    (["train/a.png", "test/labels.csv", "bus/b.png"], {}),
    (["wren/a.png", "jay/b.png"], {}),
    (["a.png"], {}),
]


@pytest.mark.parametrize(("names", "splits"), LOOKS)
def test_folders_of_two_splits_are_splits_whatever_lies_beside_and_one_alone_only_without_other_images(
    images, names, splits
):
    folder = images(*names)
    assert proposed_splits(folder) == splits
    if splits:
        named = ", ".join(f"{split}: {name}" for split, name in splits.items())
        with pytest.raises(DatasetError, match=rf"look like splits.*splits: {{{named}}}"):
            read(folder)
        read(folder, splits=splits)


def test_classes_that_are_called_like_splits_are_taken_where_the_whole_folder_is_the_query_split(images):
    folder = images("test/a.png", "train/b.png")
    assert rows(folder, splits={"query": "."}) == [("test/a.png", "query", "test"), ("train/b.png", "query", "train")]


@pytest.mark.parametrize("store", ["runs/birds", "store"])
def test_a_store_in_the_data_set_is_no_class_and_hides_no_splits(images, store):
    folder = images("wren/a.png", f"{store}/tables/score/0a1b/table.json", f"{store}/report/best.png")
    assert rows(folder) == [("wren/a.png", "query", "wren")]
    (folder / "wren").rename(folder / "test")
    assert proposed_splits(folder) == {"query": "test"}


def test_a_folder_called_tables_is_a_class_as_any_other(images):
    assert rows(images("tables/oak/a.png", "chairs/tables/b.png")) == [
        ("chairs/tables/b.png", "query", "chairs"),
        ("tables/oak/a.png", "query", "tables"),
    ]


def test_missing_folders_and_files_and_a_folder_without_images_are_told(images, tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.path: no folder .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"dataset\.path: no folder .*a\.png"):
        read(images("a.png") / "a.png")
    with pytest.raises(DatasetError, match=r"dataset\.classes: no file .*none\.txt"):
        read(images("a.png"), classes=str(tmp_path / "none.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"dataset\.path: no images under .*\.jpg"):
        read(tmp_path / "empty")


def test_names_with_spaces_quotes_signs_and_other_alphabets_are_kept_as_they_are(images):
    names = ["it's a 'jay'/a b#1@x.png", "Zaunkönig/ñandú 鳥.png", "a\\b/new\nline.png", "100%/{x}.png"]
    found = rows(images(*names))
    assert sorted(identity for identity, _, _ in found) == sorted(names)
    assert {label for _, _, label in found} == {name.split("/")[0] for name in names}


@pytest.mark.parametrize("name", [b"wren/caf\xe9.png", b"caf\xe9/a.png"])
def test_a_file_name_that_is_no_text_is_told_and_not_a_crash(images, name):
    folder = images("wren/a.png")
    path = os.path.join(os.fsencode(folder), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb"):
        pass
    with pytest.raises(DatasetError, match=r"dataset\.path: .*caf\\xe9.* is not UTF-8") as raised:
        read(folder)
    str(raised.value).encode()


def test_a_touched_file_is_a_new_version_by_time_and_the_same_by_content(images):
    folder = images("wren/a.png")
    by_time, by_content = read(folder)[0]["key"][0], read(folder, version="content")[0]["key"][0]
    os.utime(folder / "wren/a.png", (1, 1))
    assert read(folder)[0]["key"][0] != by_time
    assert read(folder, version="content")[0]["key"][0] == by_content
    (folder / "wren/a.png").write_bytes(b"other")
    assert read(folder, version="content")[0]["key"][0] != by_content


def test_a_file_is_hashed_once_in_a_process_for_as_long_as_its_size_and_time_stay(images):
    folder = images("wren/a.png")
    path = folder / "wren/a.png"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first = read(folder, version="content")[0]["key"][0]
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    assert read(folder, version="content")[0]["key"][0] == first  # not read again
    os.utime(path, (2, 2))
    assert read(folder, version="content")[0]["key"][0] != first


def test_a_pipe_is_listed_without_being_opened_and_left_to_be_rejected(images):
    folder = images("wren/a.png")
    os.mkfifo(folder / "wren/b.png")
    found = read(folder, version="content")[0].to_pylist()
    status = (folder / "wren/b.png").stat()
    assert [row["id"] for row in found] == ["wren/a.png", "wren/b.png"]
    assert found[1]["version"] == f"{status.st_size}-{status.st_mtime_ns}"


def test_a_large_file_is_hashed_in_little_memory(images):
    folder = images("wren/a.png")
    with open(folder / "wren/a.png", "wb") as file:
        file.truncate(40 << 20)
    tracemalloc.start()
    found = read(folder, version="content")[0]["version"][0].as_py()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == hashlib.sha256(bytes(40 << 20)).hexdigest()[:20]
    assert most < 10 << 20


@pytest.mark.parametrize("place", ["wren", "wren/deep", "."])
def test_a_folder_that_cannot_be_read_is_told_and_not_left_out(images, monkeypatch, place):
    folder = images("wren/deep/a.png", "jay/b.png")
    real = os.scandir

    def scandir(path):
        if os.path.normpath(path) == str(folder / place):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DatasetError, match=rf"the folder {folder / place} cannot be read: Permission denied"):
        read(folder)


def test_a_copy_that_keeps_times_has_the_same_keys(images, tmp_path):
    folder = images("wren/a.png", "jay/b.png")
    shutil.copytree(folder, tmp_path / "copy")
    assert read(tmp_path / "copy")[0]["key"].to_pylist() == read(folder)[0]["key"].to_pylist()


@pytest.mark.parametrize("version", ["mtime", "content"])
def test_a_link_to_nowhere_is_listed_and_left_to_be_rejected(images, version):
    folder = images("wren/a.png")
    (folder / "wren/b.png").symlink_to(folder / "gone.png")
    assert len(read(folder, version=version)[0]) == 2


def test_linked_folders_and_files_are_followed(images, tmp_path):
    folder = images("wren/a.png")
    (tmp_path / "jays").mkdir()
    (tmp_path / "jays/b.png").write_bytes(b"")
    (folder / "jay").symlink_to(tmp_path / "jays")
    assert rows(folder) == [("jay/b.png", "query", "jay"), ("wren/a.png", "query", "wren")]


def test_a_folder_with_images_of_its_own_at_the_top_has_no_splits(write_photos, tmp_path):
    write_photos(tmp_path / "mixed", ["1.png", "2.png", "test/3.png"])
    assert proposed_splits(tmp_path / "mixed") == {}
