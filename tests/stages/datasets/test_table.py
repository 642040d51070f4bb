"""Tables of uris: CSV, TSV and JSON Lines, uris of every kind, and versions that tell a changed image."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stages.datasets.table as table_module
from stages.dataset import DatasetError, SplitNames, TableDataset
from stages.datasets import object_versions
from stages.manifest import read_manifest
from storage.blobs import read_blobs
from storage.files import write_atomic


@pytest.fixture(autouse=True)
def forget_servers():
    """What a server said is kept for a process, and tests ask servers anew."""
    table_module._remote_version.cache_clear()
    table_module._remote_content.cache_clear()
    object_versions._known.clear()
    object_versions._asked_about.clear()


@pytest.fixture
def server():
    """Serves the bytes and ETags of `files` (name -> (bytes, etag)), and counts what it is asked for."""
    files, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            asked.append((self.command, self.path))
            data, etag = files.get(self.path, (b"", ""))
            self.send_response(200 if self.path in files else 404)
            self.send_header("Content-Length", str(len(data)))
            if etag:
                self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_GET = do_HEAD = answer

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", files, asked
        httpd.shutdown()
        thread.join()


def read(path, **keys):
    return read_manifest(TableDataset(path=str(path), **keys))


def rows(path, **keys):
    return [(row["id"], row["split"], row["class"]) for row in read(path, **keys)[0].to_pylist()]


def test_the_bytes_of_every_image_are_those_of_its_uri(tmp_path, server):
    address, files, _ = server
    (tmp_path / "photos").mkdir()
    names = ["a.jpg", 'it\'s, a "b" #1?.jpg', "ñandú 鳥.jpg", "new\nline.jpg"]
    for name in names:
        (tmp_path / "photos" / name).write_bytes(name.encode())
    (tmp_path / "far.jpg").write_bytes(b"far")
    files["/web.jpg?x=%5B1%5D"] = (b"web", "1")
    fsspec.filesystem("memory").pipe("/bucket/m.jpg", b"memory")
    uris = {f"photos/{name}": name.encode() for name in names} | {
        str(tmp_path / "far.jpg"): b"far",
        f"file://{tmp_path}/photos/it%27s%2C%20a%20%22b%22%20%231%3F.jpg": names[1].encode(),
        f"{address}/web.jpg?x=[1]": b"web",
        "memory://bucket/m.jpg": b"memory",
    }
    lines = "".join(json.dumps({"uri": uri, "label": "wren"}) + "\n" for uri in uris)
    (tmp_path / "set.jsonl").write_text(lines)
    table, _ = read(tmp_path / "set.jsonl")
    assert dict(zip(table["id"].to_pylist(), read_blobs(table["uri"].to_pylist()), strict=True)) == uris


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", '\ufeffuri,label,split,id\nx.jpg,"blue, jay",test,1\r\ny.jpg,,train,2\n'),
        ("a.tsv", "uri\tlabel\tsplit\tid\nx.jpg\tblue, jay\ttest\t1\ny.jpg\t\ttrain\t2\n"),
        ("a.jsonl", '{"uri": "x.jpg", "label": "blue, jay", "split": "test", "id": 1}\n\n'
                    '{"uri": "y.jpg", "label": null, "split": "train", "id": "2"}'),
    ],
)  # fmt: skip
def test_every_form_of_table_says_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    table, classes = read(tmp_path / name)
    assert rows(tmp_path / name) == [("1", "query", "blue, jay"), ("2", "support", None)]
    assert table["uri"].to_pylist() == [str(tmp_path / "x.jpg"), str(tmp_path / "y.jpg")]
    assert tuple(classes) == ("blue, jay",)


def test_columns_may_be_called_otherwise_and_rows_of_other_splits_are_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("file,species,fold,uri\nx.jpg,wren,1,-\ny.jpg,jay,2,-\nz.jpg,jay,3,-\n")
    keys = {"uri": "file", "label": "species", "split": "fold", "splits": SplitNames(query="2", support=["1"])}
    assert rows(tmp_path / "a.csv", **keys) == [("x.jpg", "support", "wren"), ("y.jpg", "query", "jay")]


def test_a_name_in_splits_that_no_row_has_is_told_with_those_that_there_are(tmp_path):
    (tmp_path / "a.csv").write_text("uri,label,split\nx.jpg,wren,test\ny.jpg,wren,train\n")
    with pytest.raises(
        DatasetError, match=r"splits\.support: no row of .*a\.csv .* 'trian'; there are 'test', 'train'"
    ):
        read(tmp_path / "a.csv", splits=SplitNames(query="test", support="trian"))


def test_members_and_cells_by_a_relative_path_are_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(b"..one..")
    pq.write_table(pa.table({"image": [b"two"]}), tmp_path / "b.parquet")
    uris = ["tar:a.tar?member=1.jpg&offset=2&size=3", "parquet:./b.parquet?column=image&group=0&row=0"]
    (tmp_path / "a.csv").write_text("uri,label\n" + "".join(f"{uri},wren\n" for uri in uris))
    monkeypatch.chdir("/")
    table, _ = read(tmp_path / "a.csv")
    found = dict(zip(table["id"].to_pylist(), read_blobs(table["uri"].to_pylist()), strict=True))
    assert found == dict(zip(uris, [b"one", b"two"], strict=True))


def test_a_table_that_moves_with_its_images_keeps_ids_and_versions(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/x.jpg").write_bytes(b"x")
    (tmp_path / "one/a.csv").write_text("uri,label\n./x.jpg,wren\n")
    before = read(tmp_path / "one/a.csv")[0]["key"].to_pylist()
    (tmp_path / "one").rename(tmp_path / "two")
    assert read(tmp_path / "two/a.csv")[0]["key"].to_pylist() == before


def test_a_changed_local_file_is_a_new_version_and_a_missing_one_is_listed(tmp_path):
    (tmp_path / "a.csv").write_text("uri,label\nx.jpg,wren\n")
    missing = read(tmp_path / "a.csv")[0]["version"][0].as_py()
    (tmp_path / "x.jpg").write_bytes(b"x")
    assert (missing, read(tmp_path / "a.csv")[0]["version"][0].as_py()[:2]) == ("missing", "1-")


def test_a_remote_file_is_told_by_its_etag_and_asked_for_once_a_process(tmp_path, server):
    address, files, asked = server
    files["/x.jpg"] = (b"x", "first")
    (tmp_path / "a.csv").write_text(f"uri,label\n{address}/x.jpg,wren\n{address}/gone.jpg,wren\n")
    versions = read(tmp_path / "a.csv")[0]["version"].to_pylist()
    assert versions == ["missing", "first"]
    requests = len(asked)
    read(tmp_path / "a.csv")
    assert len(asked) == requests
    files["/x.jpg"] = (b"x", "second")
    table_module._remote_version.cache_clear()
    assert read(tmp_path / "a.csv")[0]["version"].to_pylist() == ["missing", "second"]


def test_a_remote_file_without_etag_is_told_by_size_and_time(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/m.jpg", b"12345")
    (tmp_path / "a.csv").write_text("uri,label\nmemory://bucket/m.jpg,wren\n")
    assert read(tmp_path / "a.csv")[0]["version"][0].as_py().startswith("5-20")


def test_versions_by_content_hash_what_is_remote_and_versions_none_ask_nobody(tmp_path, server):
    address, files, asked = server
    files["/x.jpg"] = (b"x", "first")
    (tmp_path / "x.jpg").write_bytes(b"x")
    (tmp_path / "a.csv").write_text(f"uri,label\n{address}/x.jpg,wren\nx.jpg,wren\n")
    assert len(set(read(tmp_path / "a.csv", version="content")[0]["version"].to_pylist())) == 1
    asked.clear()
    assert read(tmp_path / "a.csv", version="none")[0]["version"].to_pylist() == ["as-named"] * 2
    assert asked == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "uri\nx\n", r"should end in \.csv, \.tsv, \.jsonl, \.ndjson"),
        ("a.csv", "", r"has no rows of any split"),
        ("a.csv", "path,label\nx.jpg,wren\n", r"a\.csv, line 2, has no 'uri'; it has path, label"),
        ("a.csv", "uri,label\nx.jpg\n", r"a\.csv, line 2, has another number of fields than the first line's 2"),
        ("a.csv", "uri,label\nx.jpg,wren,3\n", r"a\.csv, line 2, has another number of fields"),
        ("a.csv", "uri,label\n,wren\n", r"line 2, has no 'uri'"),
        ("a.csv", 'uri,label\n"x,wren\n', r"a\.csv, line \d: "),
        ("a.csv", "uri,label,split\nx.jpg,wren,fold1\n", r"dataset\.splits: .*has the split 'fold1'"),
        ("a.csv", "uri,label\nnosuch://x/y.jpg,wren\n", r"line 2: nosuch://x/y\.jpg cannot be opened"),
        ("a.csv", "uri,label\nfile://host/y.jpg,wren\n", r"line 2: .*no uri of a local file"),
        ("a.jsonl", '{"uri": "x.jpg", "label": "wren"}\nno\n', r"a\.jsonl, line 2, is no JSON: "),
        ("a.jsonl", "[1]\n", r"line 1, is no JSON object"),
        ("a.jsonl", '{"uri": "x.jpg", "label": [1]}\n', r"line 1: 'label' is \[1\]; a text or whole number"),
        ("a.jsonl", '{"uri": "\\ud800.jpg"}\n', r"line 1: 'uri' is '\\ud800\.jpg'; a text"),
        (
            "a.jsonl",
            '{"uri": "x.jpg"}\n{"uri": "y.jpg", "split": "train"}\n',
            r"line 2, has a 'split', which the first",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_told_with_its_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=words):
        read(tmp_path / name)


def test_a_column_that_was_asked_for_and_a_file_that_is_no_text_are_told(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"uri,label\ncaf\xe9.jpg,wren\n")
    with pytest.raises(DatasetError, match=r"a\.csv is not UTF-8"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("uri,label\nx.jpg,wren\n")
    for key in ("label", "id", "split"):
        with pytest.raises(DatasetError, match=r"line 2, has no 'other'; it has uri, label"):
            read(tmp_path / "a.csv", **{key: "other"})
    with pytest.raises(DatasetError, match=r"dataset\.path: no file .*none\.csv"):
        read(tmp_path / "none.csv")


@pytest.fixture
def photos(bucket):
    """`photos(*names)` puts objects of these names into a bucket, each holding its name; the address of each."""

    def write(*names: str) -> list[str]:
        for name in names:
            write_atomic(f"{bucket}/{name}", name.encode(), run="r")
        return [f"{bucket}/{name}" for name in names]

    return write


def test_objects_are_told_by_size_and_time_and_few_are_asked_about_one_by_one(tmp_path, photos, asked):
    uris = photos("a #1?.jpg", "deep/b.jpg")
    (tmp_path / "a.csv").write_text("uri,label\n" + "".join(f"{uri},wren\n" for uri in [*uris, f"{uris[0]}.gone"]))
    asked.clear()
    table, _ = read(tmp_path / "a.csv")
    assert table["id"].to_pylist() == [uris[0], f"{uris[0]}.gone", uris[1]]
    assert [version.partition("-")[0] for version in table["version"].to_pylist()] == ["9", "missing", "10"]
    assert {line.split()[0] for line in asked} == {"HEAD", "GET"}
    assert len(asked) == 4  # of the missing one whether it is a folder
    asked.clear()
    read(tmp_path / "a.csv")
    assert asked == []
    photos("deep/b.jpg2")
    write_atomic(uris[1], b"other", run="r")
    object_versions._known.clear()
    assert read(tmp_path / "a.csv")[0]["version"].to_pylist()[2].startswith("5-")


def test_a_folder_with_many_of_the_images_is_listed_and_tells_the_versions_that_asking_would(
    tmp_path, photos, asked, monkeypatch
):
    uris = photos(*(f"many/{number:02}.jpg" for number in range(12)), "few/a.jpg")
    (tmp_path / "a.csv").write_text("uri,label\n" + "".join(f"{uri},wren\n" for uri in [*uris, f"{uris[0]}.gone"]))
    monkeypatch.setattr(object_versions, "WORTH_LISTING", 100)
    one_by_one = read(tmp_path / "a.csv")[0]["version"].to_pylist()
    object_versions._known.clear()
    object_versions._asked_about.clear()
    monkeypatch.setattr(object_versions, "WORTH_LISTING", 10)
    asked.clear()
    assert read(tmp_path / "a.csv")[0]["version"].to_pylist() == one_by_one
    assert [line.split()[0] for line in sorted(asked)] == ["GET", "HEAD"]


def test_a_store_that_does_not_answer_ends_the_listing_for_its_images_are_not_missing(tmp_path, photos, monkeypatch):
    (uri,) = photos("a.jpg")
    (tmp_path / "a.csv").write_text(f"uri,label\n{uri},wren\n")

    def away(uri):
        raise ConnectionError(113, "nobody there", uri)

    monkeypatch.setattr(object_versions.objects, "find", away)
    with pytest.raises(DatasetError, match=f"dataset: .*nobody there.*{uri}"):
        read(tmp_path / "a.csv")


def test_an_object_by_content_is_hashed(tmp_path, photos):
    (uri,) = photos("a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"a.jpg")
    (tmp_path / "a.csv").write_text(f"uri,label\n{uri},wren\na.jpg,wren\n")
    assert len(set(read(tmp_path / "a.csv", version="content")[0]["version"].to_pylist())) == 1


@pytest.mark.parametrize("uri", ["s3://bucket/a.jpg?versionId=7", "s3://key:word@bucket/a.jpg", "gs:///a.jpg"])
def test_the_address_of_an_object_that_cannot_be_is_told_with_its_line(tmp_path, uri):
    (tmp_path / "a.csv").write_text(f"uri,label\n{uri},wren\n")
    with pytest.raises(DatasetError, match=r"dataset\.uri: .*a\.csv, line 2: .*(no query|no credentials|no bucket)"):
        read(tmp_path / "a.csv")
