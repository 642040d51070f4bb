"""Records of runs: what they say, and what becomes of those of runs that were killed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pipeline.job_file import load_job
from pipeline.record import git_commit, sweep_dead_runs
from storage import files
from storage.leases import Claims
from storage.records import read_records, write_record


def test_the_record_says_what_ran_where_and_with_what(finished_job):
    (record,) = [one for one in read_records(load_job(finished_job).store) if one["ending"] == "done"][:1]
    assert record["hardware"]["cores"] == os.cpu_count()
    assert record["hardware"]["memory"] > 100_000_000
    assert (record["hardware"]["nodes"], record["hardware"]["cpus"], record["hardware"]["gpus"]) == (1, 2, 0)
    assert {"python", "fieldmark", "ray", "torch", "pyarrow"} <= record["versions"].keys()
    assert record["git"] == git_commit(Path(__file__).parents[2])
    work = {stage["stage"]: stage["work"] for stage in record["stages"]}
    assert work["encode_images"] == 13 * (1 + 3 + 2), "forward passes of thirteen files, one of them no picture"
    assert work["score"] == 12 * 5


def test_a_commit_is_told_of_a_checkout_alone_and_changed_files_are_told_too(tmp_path):
    def git(*words: str) -> None:
        call = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x", *words]
        subprocess.run(call, check=True, capture_output=True)

    inside = tmp_path / "lib" / "site-packages"
    inside.mkdir(parents=True)
    (inside / "a.py").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    git_commit.cache_clear()
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    assert git_commit(inside) is None
    (inside / "a.py").write_text("2")
    git_commit.cache_clear()
    assert git_commit(tmp_path) == f"{commit}-dirty"
    git_commit.cache_clear()


DEAD, ALIVE, MINE = "20250101T000000000000_aaaaaaaa", "20250101T000000000000_bbbbbbbb", "20250101T000000000000_cccccccc"


def test_what_a_dead_run_left_is_swept_and_its_record_says_that_it_was_killed(tmp_path):
    store = str(tmp_path)
    for run in (DEAD, ALIVE):
        write_record(store, run, {"job": "birds", "ending": "running"})
        (tmp_path / f".tmp-{run}-0123456789abcdef-a.arrow").touch()
    (tmp_path / ".tmp-tables-0123456789abcdef-b").mkdir()
    write_record(store, "20240101T000000000000_dddddddd", {"job": "birds", "ending": "done"})
    with Claims(store, ALIVE, {"job": "birds"}) as other, Claims(store, MINE, {"job": "birds"}) as mine:
        other.take(["score/x"])
        mine.take(["score/y"])
        sweep_dead_runs(store, MINE)
        left = sorted(path.name for path in tmp_path.glob(".tmp-*"))
        assert left == [f".tmp-{ALIVE}-0123456789abcdef-a.arrow", ".tmp-tables-0123456789abcdef-b"]
        assert [record["ending"] for record in read_records(store)] == ["done", "killed", "running"]
        other.release()
        sweep_dead_runs(store, MINE)
    assert not list(tmp_path.glob(".tmp-*"))
    assert [record["ending"] for record in read_records(store)] == ["done", "killed", "killed"]
    assert files.exists(str(tmp_path / "runs"))
