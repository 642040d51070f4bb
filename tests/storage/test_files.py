from __future__ import annotations

import os
import subprocess
import sys

import pytest

from storage import files


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may die, in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_a_written_file_holds_the_bytes_and_leaves_nothing_beside_it(tmp_path):
    path = str(tmp_path / "deep" / "folder" / "a.bin")
    files.write_atomic(path, b"one", run="r1")
    files.write_atomic(path, memoryview(b"two"), run="r2")
    assert files.read_bytes(path) == b"two"
    assert os.listdir(os.path.dirname(path)) == ["a.bin"]


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


def test_a_run_id_that_a_sweep_could_misread_is_refused(tmp_path):
    for run in ("", "a-b", "../x", "a b"):
        with pytest.raises(ValueError, match="run id"):
            files.write_atomic(str(tmp_path / "a"), b"", run=run)


def test_a_listing_is_sorted_and_shows_no_temporaries_and_no_other_files(tmp_path):
    for name in ("b.arrow", "a.arrow", "c.json", ".tmp-r-0123456789abcdef-d.arrow"):
        (tmp_path / name).touch()
    assert files.list_files(str(tmp_path), ".arrow") == [str(tmp_path / "a.arrow"), str(tmp_path / "b.arrow")]
    assert files.list_files(str(tmp_path / "none"), ".arrow") == []


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


def test_the_size_of_a_folder_counts_every_file_below_it(tmp_path):
    files.write_atomic(str(tmp_path / "a"), bytes(10), run="r")
    files.write_atomic(str(tmp_path / "b" / "c"), bytes(5), run="r")
    assert files.folder_bytes(str(tmp_path)) == 15
    assert files.folder_bytes(str(tmp_path / "none")) == 0
