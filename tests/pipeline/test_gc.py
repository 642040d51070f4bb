"""gc: lists and removes what no job reads, and nothing else."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.registry import Origin
from pipeline.results import collect_results
from pipeline.run import Selection, run_job
from pipeline.watch import LogWatcher
from stages.encode_images import describe_table
from storage import files
from storage.leases import Claims

Row = dict[str, object]


def run(job_file: Path, *sets: str, selection: Selection = Selection(only="describe")) -> None:  # noqa: B008
    watcher = LogWatcher(Console(file=io.StringIO()))
    run_job(load_job(job_file, sets), watcher, Cluster(), selection, Origin(str(job_file)))


def make_tables(job_file: Path, *sets: str) -> list[Path]:
    """The folders of encode_images' tables under these settings, made and described, with no rows."""
    tables = make_plan(load_job(job_file, sets)).of("encode_images").tables
    for table in tables:
        table.keeper.create(describe_table(table))
    return [Path(table.keeper.folder) for table in tables]


@pytest.fixture
def gc(fieldmark) -> Callable[..., list[Row]]:
    """`gc(*arguments)` -> what is unreached in the only store."""

    def call(*arguments: object) -> list[Row]:
        said = fieldmark("gc", *arguments, "--json")
        assert said.status == 0, said.err
        (store,) = json.loads(said.out)["stores"]
        assert store["bytes"] == sum(row["bytes"] for row in store["unreached"])
        assert store["removed"] == sum(row["removed"] for row in store["unreached"])
        return store["unreached"]

    return call


@pytest.fixture
def job(small_job) -> Path:
    """The file of a job that is registered, with tables of encode_images for three crops, and for seven before."""
    file = small_job(name="birds")
    make_tables(file, "views.random.crops=7")
    make_tables(file)
    run(file)
    return file


def test_what_is_unreached_is_listed_with_what_made_it_different_and_stays(gc, job):
    (row,) = gc(job)
    assert (row["kind"], row["stage"], row["table"], row["rows"]) == ("table", "encode_images", "views.random", 0)
    assert row["differs"] == "views.random.crops 7 -> 3"
    assert row["bytes"] > 0
    folder = Path(load_job(job).store) / row["path"]
    assert folder.is_dir()
    assert not row["removed"]
    assert [one["path"] for one in gc(job, "--yes")] == [row["path"]]
    assert not folder.exists()
    assert gc(job) == []


def test_people_are_told_the_same_and_how_to_remove_it(fieldmark, job):
    said = fieldmark("gc", job)
    assert [word for word in ("views.random.crops 7 -> 3", "bytes in") if word not in said.out] == []
    assert "Nothing was removed" in said.err
    assert "removed" in fieldmark("gc", job, "--yes").out
    assert "jobs read all there is" in fieldmark("gc", job).out


def test_what_another_registered_job_reads_stays_until_that_job_is_forgotten(gc, job):
    other = job.with_name("other.yaml")
    other.write_text(job.read_text().replace("name: birds", "name: other\nstore: runs/birds"))
    run(other, "views.random.crops=7")
    other.unlink()
    assert gc(job, "--yes") == []
    (row,) = gc(job, "--forget", "other")
    assert row["table"] == "views.random"


def test_a_job_file_that_was_edited_and_not_run_yet_counts_as_well(gc, job):
    job.write_text(job.read_text().replace("crops: 3", "crops: 7"))
    assert gc(job, "--yes") == [], "three crops are registered, seven are in the file"


def test_what_a_living_run_holds_is_not_removed_and_what_comes_to_be_read_neither(gc, job, monkeypatch):
    (row,) = gc(job)
    store, held = load_job(job).store, f"encode_images/{os.path.basename(row['path'])}"
    for names in (([held], []), ([], [held])):
        with Claims(store, "other", {"job": "birds"}) as claims:
            claims.take(*names)
            assert gc(job, "--yes") == []
    import pipeline.gc

    find = pipeline.gc.find_garbage

    def find_and_then_somebody_reads_it(*arguments):
        found = find(*arguments)
        run(job, "views.random.crops=7")
        return found

    monkeypatch.setattr(pipeline.gc, "find_garbage", find_and_then_somebody_reads_it)
    (row,) = gc(job, "--yes")
    assert not row["removed"]
    assert (Path(store) / row["path"]).is_dir()


def test_completions_records_and_hashes_are_never_touched_and_what_dead_runs_left_goes(gc, job):
    store = Path(load_job(job).store)
    kept = [store / name for name in ("completions/a/b.json", "weights.json", "models.json")]
    for path in [*kept, store / "tables/describe/x/.tmp-20250101T000000000000_aaaaaaaa-0123456789abcdef-a.arrow"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (store / "lance/abc/images.lance").mkdir(parents=True)
    (store / "listings").mkdir()
    (store / "listings/abc.arrow").write_bytes(b"1234")
    records = sorted((store / "runs").iterdir())
    kinds = {row["kind"]: row for row in gc(job, "--yes")}
    assert set(kinds) == {"table", "database", "listing", "temporaries"}
    assert kinds["listing"]["bytes"] == 4
    assert all(path.exists() for path in kept)
    assert sorted((store / "runs").iterdir()) == records
    assert not list(store.rglob(".tmp-*"))
    assert not (store / "lance/abc").exists()
    assert not (store / "listings/abc.arrow").exists()


def test_a_wrong_job_file_is_told_as_everywhere(fieldmark, tmp_path):
    said = fieldmark("gc", tmp_path / "none.yaml")
    assert said.status == 2
    assert "no job file" in said.err


def test_after_gc_a_run_has_nothing_to_do_and_says_the_same(gc, finished_job, tmp_path):
    folder = Path(shutil.copytree(finished_job.parent, tmp_path / "mine"))
    mine = folder / "job.yaml"
    run(mine, selection=Selection(only="project"))  # the copy's images lie elsewhere
    unread = make_tables(mine, "views.random.crops=9")
    before = collect_results(make_plan(load_job(mine)), "birds")
    plan = make_plan(load_job(mine))
    assert [row["table"] for row in gc(mine, "--yes")] == ["views.random"]
    assert not all(place.exists() for place in unread)
    after = make_plan(load_job(mine))
    assert after.done
    assert collect_results(after, "birds") == before
    assert files.exists(plan.of("project").tables[0].keeper.uri)
