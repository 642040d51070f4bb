"""Blobs: the bytes of each uri in order, whatever holds them; what goes wrong is told in its place."""

from __future__ import annotations

import builtins
import io
import os
import tarfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import storage.blobs
from storage.blobs import read_blobs
from storage.files import write_atomic
from storage.uris import LocalFile, ParquetCell, TarMember, format_uri


@pytest.fixture
def tar(tmp_path):
    """A tar of three members `n` with the bytes `n` + 1 times their number, and their uris by name."""
    path = str(tmp_path / "a b#1?.tar")
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = number + 1
            archive.addfile(info, io.BytesIO(bytes([number]) * (number + 1)))
    with tarfile.open(path) as archive:
        return path, {m.name: format_uri(TarMember(path, m.name, m.offset_data, m.size)) for m in archive}


@pytest.fixture
def parquet(tmp_path):
    """A file with the cells b"0" ... b"9" in row groups of four, row 5 null; `(path, uris)`."""
    path = str(tmp_path / "a.parquet")
    values = [None if row == 5 else b"%d" % row for row in range(10)]
    pq.write_table(pa.table({"image": values, "unread": range(10)}), path, row_group_size=4)
    return path, [format_uri(ParquetCell(path, "image", row // 4, row % 4)) for row in range(10)]


@pytest.fixture
def server():
    """Serves `/good?x=1`, and `/endless` for as long as somebody listens, and nothing else; the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    while True:
                        self.wfile.write(b"more")
            good = self.path == "/good?x=1"
            self.send_response(200 if good else 404)
            self.send_header("Content-Length", "4" if good else "0")
            self.end_headers()
            self.wfile.write(b"good" if good else b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_batch_of_every_kind_comes_back_in_its_order(tmp_path, tar, parquet, server):
    (tmp_path / "it's a #1?\n.jpg").write_bytes(b"file")
    local, members, cells = str(tmp_path / "it's a #1?\n.jpg"), tar[1], parquet[1]
    uris = [cells[9], members["2.jpg"], local, f"{server}/good?x=1", cells[0], members["0.jpg"], local, cells[9]]
    assert read_blobs(uris) == [b"9", b"\2\2\2", b"file", b"good", b"0", b"\0", b"file", b"9"]
    assert read_blobs([]) == []


def test_what_cannot_be_read_is_told_in_its_place_and_costs_no_other(tmp_path, tar, parquet, server):
    path, members = tar
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    good = [members["1.jpg"], parquet[1][0], f"{server}/good?x=1"]
    bad = [
        str(tmp_path / "gone.jpg"),
        str(tmp_path),
        str(tmp_path / "pipe"),
        "/null\0byte",
        "tar:nothing",
        "tar:/gone.tar?member=a&offset=0&size=1",
        format_uri(TarMember(path, "cut", 10_000, 5_000)),
        f"tar:{tmp_path}?member=a&offset=0&size=1",
        format_uri(TarMember(path, "far", 2**70, 1)),
        parquet[1][5],
        format_uri(ParquetCell(parquet[0], "image", 7, 0)),
        format_uri(ParquetCell(parquet[0], "image", 0, 4)),
        format_uri(ParquetCell(parquet[0], "none", 0, 0)),
        format_uri(ParquetCell(str(tmp_path / "bad.parquet"), "image", 0, 0)),
        f"{server}/gone",
        "http://127.0.0.1:1/refused",
        "nosuch://a/b",
    ]
    found = read_blobs([*bad, *good])
    assert [type(blob) for blob in found[: len(bad)] if not isinstance(blob, OSError)] == []
    assert all(str(error) for error in found[: len(bad)])
    assert found[len(bad) :] == [b"\1\1", b"0", b"good"]
    assert "null byte" in str(found[3])
    assert "ends inside the member at byte 10000" in str(found[6])
    assert "row 1 of group 1" in str(found[9])


def test_a_tar_is_opened_once_for_a_batch(tar, monkeypatch):
    opened = []
    real = builtins.open
    monkeypatch.setattr(builtins, "open", lambda file, *args, **kw: (opened.append(file), real(file, *args, **kw))[1])
    path, members = tar
    assert read_blobs([members[name] for name in ("2.jpg", "0.jpg", "1.jpg")]) == [b"\2\2\2", b"\0", b"\1\1"]
    assert opened.count(path) == 1


def test_a_row_group_is_read_once_for_batches_that_follow_one_another_and_anew_when_the_file_changed(
    parquet, monkeypatch
):
    path, uris = parquet
    read = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, group, *args: (read.append((group, *args)), real(self, group, *args))[1],
    )
    storage.blobs._read_row_group.cache_clear()
    assert read_blobs([uris[4], uris[0], uris[7]]) == [b"4", b"0", b"7"]
    assert read_blobs([uris[1], uris[3]]) == [b"1", b"3"]
    assert read == [(1, ["image"]), (0, ["image"])]
    assert read_blobs([uris[2]]) == [b"2"]
    assert len(read) == 2
    pq.write_table(pa.table({"image": [b"new"] * 10}), path, row_group_size=4)
    assert read_blobs([uris[2]]) == [b"new"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_the_bytes_of_a_struct_are_read_as_hugging_face_stores_them(tmp_path, kind):
    struct = pa.struct([("bytes", kind), ("path", pa.string())])
    values = pa.array([{"bytes": b"one", "path": "1.jpg"}, {"bytes": None, "path": "2.jpg"}, None], struct)
    pq.write_table(pa.table({"my image": values}), tmp_path / "a.parquet")
    uris = [format_uri(ParquetCell(str(tmp_path / "a.parquet"), "my image", 0, row)) for row in range(3)]
    one, two, three = read_blobs(uris)
    assert one == b"one"
    assert isinstance(two, OSError)
    assert isinstance(three, OSError)


def test_cells_and_remote_files_that_are_too_large_are_refused_in_their_place(tmp_path, server):
    pq.write_table(pa.table({"image": [b"12345", b"1234"]}), tmp_path / "a.parquet")
    memory = fsspec.filesystem("memory")
    memory.pipe({"/large.jpg": b"12345", "/small.jpg": b"1234"})
    cells = [format_uri(ParquetCell(str(tmp_path / "a.parquet"), "image", 0, row)) for row in range(2)]
    remote = ["memory://large.jpg", "memory://small.jpg", f"{server}/endless", f"{server}/good?x=1"]
    cell, small, large, ok, endless, good = read_blobs([*cells, *remote], largest=4)
    assert (small, ok, good) == (b"1234", b"1234", b"good")
    assert "5 bytes, more than the 4" in str(cell)
    assert "more than the 4" in str(large)
    assert "more than the 4" in str(endless)
    assert "4 bytes, more than the 3" in str(read_blobs([f"{server}/good?x=1"], largest=3)[0])


def test_a_file_too_large_for_memory_is_told_by_its_size_and_costs_no_other(tmp_path):
    (tmp_path / "small.jpg").write_bytes(b"small")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(50 << 30)  # sparse: it takes no room on the disk
    member = TarMember(str(tmp_path / "a.tar"), "huge.jpg", 512, 2 << 30)
    places = [LocalFile(str(tmp_path / "huge.jpg")), LocalFile(str(tmp_path / "small.jpg"))]
    huge, small = read_blobs([format_uri(place) for place in places])
    assert "53,687,091,200 bytes, more than the 1,073,741,824 that are read" in str(huge)
    assert small == b"small"
    (tmp_path / "a.tar").write_bytes(b"tar")
    assert "2,147,483,648 bytes" in str(read_blobs([format_uri(member)])[0])
    assert "more than the 4" in str(read_blobs([format_uri(places[1])], largest=4)[0])


def test_objects_are_read_by_their_plain_names_and_what_is_wrong_with_one_costs_no_other(bucket, monkeypatch):
    names = ["it's a #1?.jpg", "ñandú 鳥.jpg.gz", "a%20b.jpg"]
    for name in names:
        write_atomic(f"{bucket}/photos/{name}", name.encode(), run="r")
    write_atomic(f"{bucket}/huge.jpg", bytes(101), run="r")
    wrong = ["gone.jpg", "photos", "huge.jpg", "a//b.jpg", "a.jpg?versionId=7"]
    good = [f"{bucket}/photos/{name}" for name in names]
    found = read_blobs([*(f"{bucket}/{name}" for name in wrong), *good, "s3://absent/x.jpg"], largest=100)
    assert found[5:8] == [name.encode() for name in names]
    assert [type(error) for error in (found[0], found[1], found[8])] == [FileNotFoundError] * 3
    assert "101 bytes, more than the 100" in str(found[2])
    assert "empty part" in str(found[3])
    assert "carries no query" in str(found[4])


def test_a_batch_of_objects_is_read_at_once(bucket, monkeypatch):
    uris = [f"{bucket}/{number}.jpg" for number in range(4)]
    for uri in uris:
        write_atomic(uri, uri.encode(), run="r")
    together = threading.Barrier(4, timeout=20)  # nobody passes before four have come
    real = storage.blobs.open_object
    monkeypatch.setattr(storage.blobs, "open_object", lambda uri: (together.wait(), real(uri))[1])
    assert read_blobs(uris) == [uri.encode() for uri in uris]
