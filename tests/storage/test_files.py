from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest

from storage import files


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may die, in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


CLOUD = """
import http.server, threading
from gcp_storage_emulator.server import create_server
http.server.HTTPServer = http.server.ThreadingHTTPServer  # one connection may stay open while another is served
server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="birds")
server.start()
print(server._api._httpd.server_port, flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def cloud():
    """The address of a server for Google's storage, with the bucket `birds`: a process, since pyarrow reads under the
    interpreter's lock there."""
    with subprocess.Popen([sys.executable, "-c", CLOUD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


@pytest.fixture(params=["disk", "s3", "gs"])
def place(request, tmp_path, monkeypatch) -> str:
    """Where files lie: a folder, or a folder of a bucket."""
    if request.param == "gs":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("cloud"))
        return f"gs://birds/{secrets.token_hex(8)}"
    return str(tmp_path / "store") if request.param == "disk" else f"{request.getfixturevalue('bucket')}/a store"


def put(path: str, data: bytes = b"x") -> str:
    files.write_atomic(path, data, run="r")
    return path


def test_a_written_file_holds_the_bytes_and_leaves_nothing_beside_it(place):
    path = os.path.join(place, "deep", "folder", "ä #1?%.gz")
    files.write_atomic(path, b"one", run="r1")
    files.write_atomic(path, memoryview(b"two"), run="r2")
    assert files.read_bytes(path) == b"two"
    assert files.list_files(os.path.dirname(path), "") == [path]
    assert files.folder_bytes(place) == 3


def test_a_file_of_several_parts_comes_back_whole_and_in_pieces(place):
    path, data = os.path.join(place, "large"), os.urandom(1 << 20) * 12
    put(path, data)
    assert files.read_bytes(path) == data
    with files.open_mapped(path) as file:
        assert file.size() == len(data)
        file.seek(11 << 20)
        assert file.read(5) == data[11 << 20 :][:5]


def test_what_was_read_outlives_its_file_and_an_empty_file_is_a_file(place):
    path = put(os.path.join(place, "a"), b"abc")
    with files.open_mapped(path) as file:
        found = file.read_buffer()
    files.remove_file(path)
    assert found.to_pybytes() == b"abc"
    assert files.read_bytes(put(os.path.join(place, "empty"), b"")) == b""


def test_many_files_are_read_in_their_order_and_a_missing_one_is_told(place):
    paths = [put(os.path.join(place, f"{number}"), b"%d" % number) for number in range(20)]
    assert files.read_each(paths) == [b"%d" % number for number in range(20)]
    assert files.read_each([]) == []
    with pytest.raises(FileNotFoundError, match="none"):
        files.read_each([paths[0], os.path.join(place, "none")])


def test_a_missing_file_has_no_bytes_and_no_time_and_may_be_removed(place):
    missing = os.path.join(place, "none")
    for ask in (files.read_bytes, files.open_mapped, files.modified):
        with pytest.raises(FileNotFoundError, match="none"):
            ask(missing)
    assert not files.exists(missing)
    files.remove_file(missing)
    files.remove_folder(missing, run="r")


def test_a_listing_is_sorted_and_shows_no_hidden_and_no_other_files_and_no_folders(place):
    for name in ("b.arrow", "a.arrow", "c.json", ".d.arrow", "sub/e.arrow", ".hidden/f.arrow"):
        put(os.path.join(place, name))
    assert files.list_files(place, ".arrow") == [os.path.join(place, "a.arrow"), os.path.join(place, "b.arrow")]
    assert files.list_folders(place) == [os.path.join(place, "sub")]
    assert [path for path, _ in files.list_stamped(place, ".arrow")] == files.list_files(place, ".arrow")
    for ask in (files.list_files, files.list_stamped):
        assert ask(os.path.join(place, "none"), ".arrow") == []
    assert files.list_folders(os.path.join(place, "none")) == []
    assert files.relative(files.list_folders(place)[0], place) == "sub"


def test_stamps_tell_the_time_of_the_last_change_alike_for_one_file_and_in_a_listing(place):
    path = put(os.path.join(place, "a.json"))
    ((listed, stamp),) = files.list_stamped(place, ".json")
    assert listed == path
    assert abs(stamp - files.modified(path)) < 1  # S3 tells whole seconds when it is asked for one object
    assert files.exists(path)
    assert files.exists(place)


def test_a_removed_file_and_folder_are_gone_and_nothing_else_is(place):
    for name in ("a/x.json", "a/b/y", "ab/z", "c"):
        put(os.path.join(place, name))
    files.remove_folder(os.path.join(place, "a"), run="r")
    files.remove_file(os.path.join(place, "c"))
    assert files.list_folders(place) == [os.path.join(place, "ab")]
    assert not files.exists(os.path.join(place, "c"))
    assert not files.exists(os.path.join(place, "a"))
    assert files.folder_bytes(place) == 1


def test_a_run_id_that_a_sweep_could_misread_is_refused(place):
    for run in ("", "a-b", "../x", "a b"):
        with pytest.raises(ValueError, match="run id"):
            files.write_atomic(os.path.join(place, "a"), b"", run=run)


def test_the_size_of_a_folder_counts_every_file_below_it(place):
    put(os.path.join(place, "a"), bytes(10))
    put(os.path.join(place, "b", "c"), bytes(5))
    assert files.folder_bytes(place) == 15
    assert files.folder_bytes(os.path.join(place, "none")) == 0
    assert files.sweep_temporaries(place, lambda run: False) == 0


def test_a_crash_between_temporary_and_rename_leaves_nothing_visible_until_it_is_swept(tmp_path):
    code = """
import os, sys
from storage import files
os.replace = lambda source, target: os._exit(9)
files.write_atomic(sys.argv[1], b"half a thought", run="dead")
"""
    path = str(tmp_path / "table" / "a.arrow")
    assert python(code, path).returncode == 9
    assert not files.exists(path)
    assert files.list_files(os.path.dirname(path), ".arrow") == []
    (left,) = os.listdir(os.path.dirname(path))
    assert left.startswith(".tmp-dead-")
    assert left.endswith("-a.arrow")
    assert files.sweep_temporaries(str(tmp_path), lambda run: run != "dead") == 1
    assert os.listdir(os.path.dirname(path)) == []


def test_a_disk_that_fills_up_raises_and_leaves_the_old_file_alone(tmp_path):
    code = """
import errno, resource, sys
from storage import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a write beyond 1000 bytes fails, as on a full disk
try:
    files.write_atomic(sys.argv[1], bytes(5000), run="r")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    path = str(tmp_path / "a.bin")
    files.write_atomic(path, b"old", run="r")
    assert python(code, path).stdout.strip() == "EFBIG"
    assert files.read_bytes(path) == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_sweep_keeps_the_temporaries_of_living_runs_and_files_that_only_look_alike(tmp_path):
    inner = tmp_path / "table" / "rejects"
    inner.mkdir(parents=True)
    kept = [".tmp-alive-0123456789abcdef-a", ".tmp-notes", "tmp-dead-0123456789abcdef-a"]
    for name in [*kept, ".tmp-dead-0123456789abcdef-a-b.arrow"]:
        (inner / name).touch()
    (tmp_path / ".tmp-dead-0123456789abcdef-table").mkdir()
    (tmp_path / ".tmp-dead-0123456789abcdef-table" / "x.arrow").touch()
    asked = []
    assert files.sweep_temporaries(str(tmp_path), lambda run: asked.append(run) or run == "alive") == 2
    assert sorted(os.listdir(inner)) == sorted(kept)
    assert os.listdir(tmp_path) == ["table"]
    assert sorted(asked) == ["alive", "dead"]


def test_a_process_that_dies_in_the_middle_of_an_upload_leaves_the_old_object(bucket):
    code = """
import os, sys
from storage.filesystems import open_filesystem
filesystem, path = open_filesystem(sys.argv[1])
stream = filesystem.open_output_stream(path, compression=None)
stream.write(bytes(25_000_000))  # two parts are sent, the third waits for the end
os._exit(9)
"""
    path = put(f"{bucket}/a.arrow", b"old")
    assert python(code, path).returncode == 9
    assert files.read_bytes(path) == b"old"
    assert python(code, f"{bucket}/b.arrow").returncode == 9
    assert files.list_files(bucket, "") == [path]


def test_an_interrupt_while_an_object_is_written_leaves_it_whole_or_absent(bucket, monkeypatch):
    from storage import objects

    def interrupted(*_):
        raise KeyboardInterrupt

    real = objects.ThreadPoolExecutor.submit
    monkeypatch.setattr(objects.ThreadPoolExecutor, "submit", lambda pool, write: (real(pool, write), interrupted())[0])
    with pytest.raises(KeyboardInterrupt):
        put(f"{bucket}/a", b"whole")
    assert files.read_bytes(f"{bucket}/a") == b"whole"


def test_each_question_costs_an_object_store_the_fewest_requests(bucket, asked):
    name = bucket.removeprefix("s3://")

    def cost(ask) -> list[str]:
        asked.clear()
        ask()
        return [line.replace(f"/{name}", "") for line in asked]

    assert cost(lambda: put(f"{bucket}/f/a.json")) == ["PUT /f/a.json"]
    for number in range(30):
        put(f"{bucket}/f/{number}.json")
    assert cost(lambda: files.read_bytes(f"{bucket}/f/a.json")) == ["HEAD /f/a.json", "GET /f/a.json"]
    assert cost(lambda: files.open_mapped(f"{bucket}/f/a.json").read()) == ["HEAD /f/a.json", "GET /f/a.json"]
    assert cost(lambda: files.exists(f"{bucket}/f/a.json")) == ["HEAD /f/a.json"]
    assert cost(lambda: files.modified(f"{bucket}/f/a.json")) == ["HEAD /f/a.json"]
    for ask in (lambda: files.list_stamped(f"{bucket}/f", ".json"), lambda: files.folder_bytes(bucket)):
        assert cost(ask) == ["GET "]
    assert cost(lambda: files.sweep_temporaries(bucket, lambda run: False)) == []
