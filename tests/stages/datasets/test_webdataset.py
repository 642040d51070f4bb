"""Tar shards: samples by their names, labels from four places, reading by a seek, and no member touches a file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dataset import DatasetError, SplitNames, WebDataset
from stages.datasets.tar_members import read_members
from stages.manifest import read_manifest
from storage.blobs import read_blobs


def write_tar(
    path, members: dict[str, bytes] | list[tuple[str, bytes | str]], mtime: float = 5, form: int = tarfile.PAX_FORMAT
):
    """A tar of (name, bytes) in order; a text in place of bytes is the type of a member without data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.mtime = mtime
            if isinstance(data, str):
                info.type, info.linkname = data.encode(), "/etc/passwd"
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def read(path, cache=None, **keys):
    return read_manifest(WebDataset(path=path if isinstance(path, list) else str(path), **keys), cache)


def rows(path, **keys):
    return [(row["id"], row["split"], row["class"]) for row in read(path, **keys)[0].to_pylist()]


def test_the_bytes_of_every_image_are_those_of_its_member(tmp_path):
    images = {f"wren/{name}.jpg": name.encode() * 9 for name in ("a", "it's b #1?", "ñandú 鳥", "new\nline", "x" * 120)}
    images["jay/c.PNG"] = b"c"
    path = write_tar(tmp_path / "birds 1.tar", images)
    table, classes = read(path)
    found = dict(zip(table["id"].to_pylist(), read_blobs(table["uri"].to_pylist()), strict=True))
    assert found == images
    assert tuple(classes) == ("jay", "wren")
    assert set(table["version"].to_pylist()) == {f"{len(data)}-5000000000" for data in images.values()}


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40),
        st.binary(max_size=600),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_members_are_where_they_are_said_to_be_whatever_they_are_called(tmp_path_factory, members, form):
    path = tmp_path_factory.mktemp("any") / "a.tar"
    write_tar(path, members, form=form)
    raw = path.read_bytes()
    with open(path, "rb") as file, tarfile.open(path) as oracle:
        ours = [(m.name, raw[m.offset : m.offset + m.size]) for m in read_members(str(path), file)]
        assert ours == [(m.name, oracle.extractfile(m).read()) for m in oracle if m.isreg()]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_or_cut_tar_is_read_or_refused_and_never_crashes(tmp_path_factory, data):
    path = write_tar(tmp_path_factory.mktemp("any") / "a.tar", {"x" * 120 + ".jpg": b"a" * 700, "b.jpg": b"b"})
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with open(path, "rb") as file, suppress(DatasetError):
        assert all(member.offset + member.size <= path.stat().st_size for member in read_members(str(path), file))


def test_a_tar_that_is_cut_anywhere_before_its_end_mark_is_told_with_the_shard_and_the_byte(tmp_path):
    whole = write_tar(tmp_path / "a.tar", {"a.jpg": b"a" * 700, "b.jpg": b"b"}).read_bytes()
    end = 512 + 1024 + 512 + 512
    for size in range(0, end + 1, 64):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DatasetError, match=r"cut\.tar is (cut off|damaged).* byte \d+"):
            read(tmp_path / "cut.tar", label="none")
    (tmp_path / "cut.tar").write_bytes(whole[: end + 512])
    with open(tmp_path / "cut.tar", "rb") as file:
        assert [member.name for member in read_members("cut.tar", file)] == ["a.jpg", "b.jpg"]


def test_a_forged_size_does_not_send_the_reader_round_and_round(tmp_path):
    raw = bytearray(write_tar(tmp_path / "a.tar", {"a.jpg": b"a"}).read_bytes())
    raw[124:136] = (-512).to_bytes(12, "big", signed=True)  # the size field of the header, as GNU writes large numbers
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    (tmp_path / "a.tar").write_bytes(raw)
    with pytest.raises(DatasetError, match=r"a\.tar is damaged at byte 0: a member of -512 bytes"):
        read(tmp_path / "a.tar", label="none")


def test_names_that_lead_elsewhere_are_only_names_and_links_and_devices_are_passed_over(tmp_path):
    links = [(f"b/{kind}.jpg", str(kind)) for kind in range(1, 7)]
    images = [("../../a/1.jpg", b"one"), ("/etc/2.jpg", b"two"), ("./c/3.jpg", b"three"), ("c/../4.jpg", b"four")]
    path = write_tar(tmp_path / "inside/a.tar", [*links, *images])
    table, _ = read(path)
    assert table["id"].to_pylist() == ["../../a/1.jpg", "/etc/2.jpg", "c/../4.jpg", "c/3.jpg"]
    assert read_blobs(table["uri"].to_pylist()) == [b"one", b"two", b"four", b"three"]
    assert sorted(os.listdir(tmp_path)) == ["inside"]


def test_a_hard_link_in_a_tar_is_one_more_name_of_an_earlier_members_bytes(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"twice")
    os.link(tmp_path / "in/a.jpg", tmp_path / "in/b.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in/a.jpg", "x/a.jpg")
        tar.add(tmp_path / "in/b.jpg", "y/b.jpg")
        assert tar.getmember("y/b.jpg").islnk()
    table, _ = read(tmp_path / "a.tar")
    assert table["id"].to_pylist() == ["x/a.jpg", "y/b.jpg"]
    assert read_blobs(table["uri"].to_pylist()) == [b"twice", b"twice"]
    assert table["version"][0].as_py().startswith("5-")


def test_a_negative_label_says_that_it_is_not_known(tmp_path):
    (tmp_path / "names.txt").write_text("wren\njay\n")
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"", "a.cls": b"-1", "b.jpg": b"", "b.cls": b"1"})
    assert [name for *_, name in rows(path, classes=str(tmp_path / "names.txt"))] == [None, "jay"]


def test_a_sample_is_the_members_that_share_a_name_up_to_its_first_dot(tmp_path):
    members = {
        "x/1.jpg": b"image", "x/1.cls": b"0\n", "x/1.seg.png": b"mask", "x/1.txt": b"caption",
        "y/1.cls": b"1", "y/1.left.JPEG": b"image",
        "y/.hidden.jpg": b"-", "y/noending": b"-", "y/2.cls": b"0",
    }  # fmt: skip
    (tmp_path / "names.txt").write_text("wren\njay\n")
    path = write_tar(tmp_path / "a.tar", members)
    names = str(tmp_path / "names.txt")
    assert rows(path, classes=names) == [("x/1.jpg", "query", "wren"), ("y/1.left.JPEG", "query", "jay")]
    assert rows(path, classes=names, image="seg.png") == [("x/1.seg.png", "query", "wren")]


def test_two_images_of_a_sample_that_cannot_be_told_apart_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"img_1.5x.jpg": b"a", "img_1.7x.jpg": b"b"})
    with pytest.raises(DatasetError, match=r"dataset\.image: 'img_1\.5x\.jpg' and 'img_1\.7x\.jpg' .*image: 5x\.jpg"):
        read(path, label="none")


LABELLED = {
    "cls": {"f/a.jpg": b"", "f/a.cls": b"wren", "g/b.jpg": b"", "g/b.cls": b"jay", "f/a.json": b'{"label": "x"}'},
    "json": {"f/a.jpg": b"", "f/a.json": b'{"class": "wren"}', "g/b.jpg": b"", "g/b.json": b'{"label": "jay"}'},
    "folder": {"f/wren/a.jpg": b"", "g/jay/b.jpg": b"", "g/jay/b.json": b'{"caption": "a bird"}'},
}


@pytest.mark.parametrize("source", LABELLED)
def test_labels_are_found_where_they_are_and_where_they_are_asked_for(tmp_path, source):
    path = write_tar(tmp_path / "a.tar", LABELLED[source])
    for label in ("auto", source):
        assert [name for *_, name in rows(path, label=label)] == ["wren", "jay"]
    (tmp_path / "names.txt").write_text("robin")
    assert [name for *_, name in rows(path, label="none", classes=str(tmp_path / "names.txt"))] == [None, None]


def test_labels_by_another_key_of_the_json_and_images_without_one(tmp_path):
    members = {"a.jpg": b"", "a.json": b'{"species": "wren", "label": 3}', "b.jpg": b"", "b.json": b"{}"}
    assert rows(write_tar(tmp_path / "a.tar", members), label_key="species") == [
        ("a.jpg", "query", "wren"),
        ("b.jpg", "query", None),
    ]


@pytest.mark.parametrize(
    ("name", "data", "keys"),
    [
        ("a.cls", b"\xff", {}),
        ("a.cls", b" ", {}),
        ("a.cls", b"one\ntwo", {}),
        ("a.json", b"{", {"label": "json"}),
        ("a.json", b"[" * 100_000, {"label": "json"}),
        ("a.json", b'{"label": [1, 2]}', {"label": "json"}),
        ("a.json", b'{"label": "\\ud800"}', {"label": "json"}),
    ],
)
def test_a_label_that_is_none_is_told_with_its_member_and_shard(tmp_path, name, data, keys):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"", name: data})
    with pytest.raises(DatasetError, match=rf"dataset\.label: '{name}' of .*a\.tar is no"):
        read(path, **keys)


def test_numbered_labels_without_names_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"", "a.json": json.dumps({"label": 7}).encode()})
    with pytest.raises(DatasetError, match=r"the labels of .* are numbers \(7\); name the classes in a file"):
        read(path)


def test_members_of_one_path_in_two_shards_are_led_by_the_shards_name_and_no_others(tmp_path):
    write_tar(tmp_path / "s/0.tar", {"c/1.jpg": b"a", "d/2.jpg": b"b"})
    write_tar(tmp_path / "s/sub/1.tar", {"c/1.jpg": b"c", "d/3.jpg": b"d"})
    table, _ = read(tmp_path / "s")
    assert table["id"].to_pylist() == ["0.tar/c/1.jpg", "d/2.jpg", "d/3.jpg", "sub/1.tar/c/1.jpg"]
    assert read_blobs(table["uri"].to_pylist()) == [b"a", b"b", b"d", b"c"]


def test_a_member_that_was_appended_again_counts_as_tar_says_once_and_with_its_last_bytes(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("c/1.jpg", b"old"), ("d/2.jpg", b"two"), ("c/1.jpg", b"new")])
    table, _ = read(path)
    assert read_blobs(table["uri"].to_pylist()) == [b"new", b"two"]


def test_a_shard_written_anew_with_members_before_an_image_keeps_the_images_key(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"c/1.jpg": b"one", "d/2.jpg": b"two"})
    before = read(path)[0]
    write_tar(path, {"b/0.jpg": b"zero", "c/1.jpg": b"one", "d/2.jpg": b"TWO!"})
    after = read(path)[0]
    assert after["key"].to_pylist()[1] == before["key"].to_pylist()[0]
    assert after["key"].to_pylist()[2] != before["key"].to_pylist()[1]
    assert read_blobs(after["uri"].to_pylist()) == [b"zero", b"one", b"TWO!"]


def test_a_version_by_content_passes_over_times(tmp_path):
    keys = [read(write_tar(tmp_path / "a.tar", {"c.jpg": b"x"}, time), label="none", version="content",
                 classes=str(names(tmp_path)))[0]["key"][0] for time in (1, 2.5)]  # fmt: skip
    assert keys[0] == keys[1]


def test_a_version_by_content_is_the_hash_of_the_members_own_bytes(tmp_path):
    data = bytes(range(256)) * 5000  # more than a block
    path = write_tar(tmp_path / "a.tar", {"a.jpg": data, "b.jpg": data[:-1]})
    versions = read(path, label="none", version="content", classes=str(names(tmp_path)))[0]["version"].to_pylist()
    assert versions == [hashlib.sha256(part).hexdigest()[:20] for part in (data, data[:-1])]


def names(folder):
    (folder / "names.txt").write_text("wren\n")
    return folder / "names.txt"


def test_what_a_shard_holds_is_found_once_and_kept_beside_the_store(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", {"c/1.jpg": b"one", "d/2.jpg": b"two"})
    first = read(path, str(tmp_path / "listings"))[0]
    monkeypatch.setattr("stages.datasets.kept._in_this_process", {})
    monkeypatch.setattr("stages.datasets.webdataset.read_members", None)
    assert read(path, str(tmp_path / "listings"))[0].equals(first)
    monkeypatch.undo()
    write_tar(path, {"c/1.jpg": b"one", "d/2.jpg": b"two", "e/3.jpg": b"three"})
    assert len(read(path, str(tmp_path / "listings"))[0]) == 3


def test_a_store_that_cannot_be_written_to_is_no_hindrance(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    path = write_tar(tmp_path / "a.tar", {"c/1.jpg": b"one", "d/2.jpg": b"two"})
    assert len(read(path, str(tmp_path / "file/listings"))[0]) == 2


@pytest.mark.parametrize(
    "path", ["s", "s/b-*.tar", "s/b-{000..001}.tar", "s/b-{000,001}.tar", ["s/b-000.tar", "s/b-001.tar"]]
)
def test_shards_are_a_folder_a_pattern_a_range_or_a_list(tmp_path, path):
    for number in range(2):
        write_tar(tmp_path / f"s/b-00{number}.tar", {f"c{number}/{number}.jpg": b""})
    places = [str(tmp_path / place) for place in path] if isinstance(path, list) else str(tmp_path / path)
    assert [identity for identity, *_ in rows(places)] == ["c0/0.jpg", "c1/1.jpg"]


@pytest.mark.parametrize(
    "splits",
    [{"query": "test", "support": "train"}, {"query": "test/*.tar", "support": ["train/0.tar", "train/1.tar"]}],
)
def test_splits_are_folders_or_patterns_of_shards(tmp_path, splits):
    for name in ("test/0", "train/0", "train/1", "extra/0"):
        write_tar(tmp_path / f"s/{name}.tar", {f"{name.replace('/', '')}/1.jpg": b""})
    assert [(identity, split) for identity, split, _ in rows(tmp_path / "s", splits=SplitNames(**splits))] == [
        ("test0/1.jpg", "query"),
        ("train0/1.jpg", "support"),
        ("train1/1.jpg", "support"),
    ]


@pytest.mark.parametrize("folder", ["data[1]", "data{1}", "data*"])
def test_a_folder_whose_name_has_the_signs_of_a_pattern_is_taken_by_its_name(tmp_path, folder):
    for name in ("test-0", "train-0"):
        write_tar(tmp_path / folder / f"{name}.tar", {f"c/{name}.jpg": b"", "d/" + name + ".jpg": b""})
    write_tar(tmp_path / "data1/test-9.tar", {"c/other.jpg": b""})
    table, _ = read(tmp_path / folder, splits=SplitNames(query="test*", support="train-{0..0}.tar"))
    assert table["split"].to_pylist() == ["query", "support"] * 2
    assert read(tmp_path / folder / "test-*.tar")[0]["id"].to_pylist() == ["c/test-0.jpg", "d/test-0.jpg"]


def test_shards_that_are_called_after_splits_are_not_taken_for_one_set(tmp_path):
    for name in ("data/birds-test", "test-0", "train-0"):
        write_tar(tmp_path / f"s/{name}.tar", {f"{name}/1.jpg": b""})
    with pytest.raises(DatasetError, match=r"splits: \{query: 'test\*', support: 'train\*'\}"):
        read(tmp_path / "s")
    assert len(read(tmp_path / "s", splits=SplitNames(query="."))[0]) == 3


def test_shards_that_are_not_there_or_of_another_kind_or_packed_are_told(tmp_path):
    write_tar(tmp_path / "s/a.tar", {"c/1.jpg": b""})
    packed = gzip.compress((tmp_path / "s/a.tar").read_bytes())
    for name in ("p/a.tar.gz", "p/b.tgz", "q/a.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(packed)
    (tmp_path / "empty").mkdir()
    for path, words in [
        ("none.tar", r"no file .*none\.tar"),
        ("s/b-*.tar", r"no file .*b-\*\.tar"),
        ("empty", r"no \.tar files under .*empty"),
        ("p", r"no \.tar files under .*only packed ones such as a\.tar\.gz; .*unpack"),
        ("p/b.tgz", r"b\.tgz is no \.tar file; .*unpack"),
        ("q/a.tar", r"a\.tar is packed; unpack"),
    ]:
        with pytest.raises(DatasetError, match=r"dataset\.path: .*" + words):
            read(tmp_path / path)
    with pytest.raises(DatasetError, match=r"dataset\.path: no images in the tars of"):
        read(write_tar(tmp_path / "t.tar", {"a.txt": b""}))
    with pytest.raises(DatasetError, match=r"a\.tar lies in both support and query"):
        read(tmp_path / "s", splits=SplitNames(query="a.tar", support="*.tar"))
    with pytest.raises(DatasetError, match=r"is not UTF-8"):
        read(write_tar(tmp_path / "u.tar", {"caf\udce9.jpg": b""}, form=tarfile.GNU_FORMAT), label="none")
