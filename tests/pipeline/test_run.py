"""A run: which stages are chosen, what a finished one does again, and how a failure is told."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cluster import Cluster
from pipeline.failure import explain_failure, no_space
from pipeline.job_file import load_job
from pipeline.plan import OF_SOME_JOBS, make_plan
from pipeline.run import Selection, run_job
from pipeline.store_held import StoreHeld
from pipeline.watch import LogWatcher
from stages.stage import TooManyRejects
from storage import files
from storage.leases import Claims, LeaseLost
from storage.records import read_records

ORDER = ["describe", "encode_images", "encode_text", "score", "evaluate", "project"]


def quiet() -> LogWatcher:
    return LogWatcher(Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), ORDER),
        (Selection(only="score"), ["score"]),
        (Selection(start="score"), ["score", "evaluate", "project"]),
        (Selection(until="encode_images"), ["describe", "encode_images"]),
        (Selection(start="score", until="score"), ["score"]),
        (Selection(force="score"), ORDER),
    ],
)
def test_a_selection_names_its_stages_in_order(selection, names):
    assert selection.names(ORDER) == names


@pytest.mark.parametrize("selection", [Selection(**{way: "socre"}) for way in ("only", "start", "until", "force")])
def test_a_stage_that_is_none_is_told_with_those_there_are(selection):
    with pytest.raises(ValueError, match=r"'socre'; there are describe, .*project"):
        selection.names(ORDER)


@pytest.mark.parametrize(("way", "option"), [("start", "--from"), ("until", "--until")])
def test_one_stage_alone_and_a_stretch_of_stages_are_not_asked_for_together(way, option):
    with pytest.raises(ValueError, match=f"--only score is that stage alone; leave out {option} evaluate"):
        Selection(only="score", **{way: "evaluate"}).names(ORDER)


def test_an_empty_stretch_of_stages_is_refused():
    with pytest.raises(ValueError, match="--from project comes after --until describe"):
        Selection(start="project", until="describe").names(ORDER)


def test_a_finished_job_run_again_computes_nothing_starts_no_ray_and_notes_no_new_record(finished_job):
    job, cluster = load_job(finished_job), Cluster()
    before = read_records(job.store)
    results = run_job(job, quiet(), cluster)
    assert [(result.stage, result.computed) for result in results] == [
        (stage.stage.name, 0) for stage in make_plan(job).stages if stage.stage.name not in OF_SOME_JOBS
    ]
    assert not cluster.started
    assert read_records(job.store) == before


def test_the_record_of_a_run_says_what_was_run_and_where_the_database_is(finished_job):
    job = load_job(finished_job)
    record = read_records(job.store)[0]
    assert (record["job"], record["ending"]) == ("birds", "done")
    assert record["settings"]["views"]["random"]["crops"] == 3
    assert (Path(job.store) / record["database"]).is_dir()
    assert [row["reason"].split(" (")[0] for row in record["rejects"]] == ["not an image"]
    counts = {row["stage"]: row["computed"] for row in record["stages"]}
    assert counts["encode_images"] == 3 * 12
    assert counts["score"] == 5 * 12
    assert record["tables"]["encode_images/whole"] == make_plan(job).of("encode_images").tables[0].fingerprint


def test_a_stage_that_needs_another_first_says_so(small_job):
    job = load_job(small_job())
    with pytest.raises(RuntimeError, match=r"score cannot run yet: .*known after"):
        run_job(job, quiet(), Cluster(), Selection(only="score"))


def test_describe_alone_needs_no_ray_and_is_noted(small_job):
    job, cluster = load_job(small_job()), Cluster()
    (result,) = run_job(job, quiet(), cluster, Selection(only="describe"))
    assert (result.computed, result.reused, cluster.started) == (3, 0, False)
    (record,) = read_records(job.store)
    assert (record["ending"], record["database"]) == ("done", None)


def test_force_drops_a_stages_rows_and_makes_them_anew(small_job):
    job = load_job(small_job())
    run_job(job, quiet(), Cluster(), Selection(only="describe"))
    (result,) = run_job(job, quiet(), Cluster(), Selection(only="describe", force="describe"))
    assert (result.computed, result.reused) == (3, 0)


def test_a_failure_is_told_in_one_line_without_the_wrapping_of_a_worker():
    class Wrapped(Exception):
        cause = FileNotFoundError("weights.pt")

    assert explain_failure(TooManyRejects("11 of 20 images")) == "11 of 20 images"
    assert explain_failure(KeyError("x")) == "KeyError: 'x'"
    import ray  # noqa: F401  only then can an error come from a worker

    assert explain_failure(Wrapped("long traceback")) == "FileNotFoundError: weights.pt"


def test_the_record_says_where_the_time_of_encoding_went(finished_job):
    record = read_records(load_job(finished_job).store)[0]
    phases = {stage["stage"]: stage["phases"] for stage in record["stages"]}
    assert set(phases["encode_images"]) == {"copy", "crop", "decode", "encode", "feature_crop", "guide", "write"}
    assert phases["encode_images"]["encode"] > 0
    assert phases["score"] == {}


def test_a_handful_of_images_is_scored_by_one_actor_in_one_batch(finished_job):
    shards = [files.list_files(t.keeper.folder, ".arrow") for t in make_plan(load_job(finished_job)).of("score").tables]
    assert [len(paths) for paths in shards] == [1] * 5


class Told(LogWatcher):
    """A quiet watcher that remembers what was announced, and does something then."""

    def __init__(self, then: Callable[[], None] = lambda: None):
        super().__init__(Console(file=io.StringIO()))
        self.texts: list[str] = []
        self.then = then

    def announced(self, text: str) -> None:
        self.texts.append(text)
        self.then()


DESCRIBE = Selection(only="describe")


@pytest.fixture
def other(small_job, monkeypatch) -> Iterator[Claims]:
    """Another run, which computes the descriptors of `small_job()`."""
    monkeypatch.setattr("pipeline.holding.SECONDS_BETWEEN_LOOKS", 0.01)
    job = load_job(small_job())
    (table,) = make_plan(job).of("describe").tables
    with Claims(job.store, "other", {"job": "birds"}) as claims:
        claims.take([f"describe/{table.fingerprint}/rows"], [f"describe/{table.fingerprint}"])
        yield claims


def test_a_run_that_needs_what_another_computes_is_refused_and_told_who_it_is(small_job, other, fieldmark):
    said = fieldmark("run", small_job(), "--only", "describe")
    assert said.status == 3
    told = rf"{other.store}: table describe/descriptors\.marks is being computed by job birds on {platform.node()} "
    assert re.search(rf"{told}\(process {os.getpid()}\) since \d\d:\d\d; wait with --wait, or stop that run", said.err)
    assert read_records(other.store) == []
    assert fieldmark("run", small_job(), "--only", "describe", "--force", "describe").status == 3


def test_a_run_that_waits_says_so_once_and_computes_nothing_that_the_other_did(small_job, other):
    job = load_job(small_job())

    def the_other_is_done() -> None:
        other.release()
        run_job(job, quiet(), Cluster(), DESCRIBE)

    watcher = Told(the_other_is_done)
    (result,) = run_job(job, watcher, Cluster(), Selection(only="describe", wait=True))
    assert (result.computed, result.reused) == (0, 3)
    (text,) = watcher.texts
    assert text.startswith("waiting: table describe/descriptors.marks is being computed by job birds on ")
    assert files.list_files(f"{job.store}/leases", ".json") == []


def test_rows_are_added_to_a_table_that_another_run_reads_and_are_not_dropped(small_job, other):
    job = load_job(small_job())
    other.give_up(other.exclusive)
    run_job(job, quiet(), Cluster(), DESCRIBE)
    with pytest.raises(StoreHeld, match=r"describe/descriptors\.marks is in use by job birds"):
        run_job(job, quiet(), Cluster(), Selection(only="describe", force="describe"))
    assert make_plan(job).of("describe").done


def test_a_run_with_nothing_to_compute_takes_nothing(small_job):
    job = load_job(small_job())
    run_job(job, quiet(), Cluster(), DESCRIBE)
    os.rmdir(f"{job.store}/leases")
    run_job(job, quiet(), Cluster(), DESCRIBE)
    assert not files.exists(f"{job.store}/leases")


def test_a_stage_may_ask_whether_the_run_still_holds_its_tables(small_job, monkeypatch):
    job = load_job(small_job())

    def compute(self, tables, inputs, run):
        run.still_ours()
        for path in files.list_files(f"{job.store}/leases", ".json"):
            files.remove_file(path)  # as whoever takes this run for dead does
        run.still_ours()

    monkeypatch.setattr("stages.describe.Describe.compute", compute)
    with pytest.raises(LeaseLost):
        run_job(job, quiet(), Cluster(), DESCRIBE)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts back the handlers of signals, which an interrupted command keeps to the end of its process."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "status", "ending"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_a_run_cleanly_with_a_status_of_its_own(
    small_job, monkeypatch, fieldmark, number, status, ending
):
    file = small_job()
    monkeypatch.setattr("stages.describe.Describe.compute", lambda *arguments: signal.raise_signal(number))
    said = fieldmark("run", file, "--only", "describe")
    assert said.status == status
    assert f"Go on with: fieldmark run {file}" in said.err
    (record,) = read_records(load_job(file).store)
    assert record["ending"] == ending
    assert files.list_files(f"{load_job(file).store}/leases", ".json") == []


SIGNALS_DURING_THE_STOP = """
import signal, sys
from pipeline.clean_stop import CleanStop

with CleanStop() as stop:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        for _ in range(int(sys.argv[1])):
            signal.raise_signal(signal.SIGINT)
        print("all put away")
signal.raise_signal(signal.SIGINT) if sys.argv[1] == "0" else None
sys.exit(stop.status)
"""


@pytest.mark.parametrize(("more", "out"), [(0, "all put away\n"), (1, "all put away\n"), (2, "")])
def test_more_signals_during_the_stop_print_no_traceback_and_the_third_ends_at_once(more, out):
    call = [sys.executable, "-c", SIGNALS_DURING_THE_STOP, str(more)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, out)
    assert "Traceback" not in done.stderr
    assert "once more ends at once" in done.stderr


def test_a_record_that_cannot_be_written_does_not_hide_why_the_run_failed(small_job):
    job = load_job(small_job())

    class Failing(Told):
        def advanced(self, stage: str, done: int, rejected: int) -> None:
            shutil.rmtree(f"{job.store}/runs")
            Path(f"{job.store}/runs").touch()
            raise RuntimeError("why it failed")

    watcher = Failing()
    with pytest.raises(RuntimeError, match="why it failed"):
        run_job(job, watcher, Cluster(), DESCRIBE)
    assert "record could not be written" in watcher.texts[-1]


RUN_WITH_A_LIMIT = """
import resource, sys
from pipeline.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # a longer file cannot be written, as on a full disk
sys.argv = ["fieldmark", "run", sys.argv[1], "--only", "describe"]
main()
"""


def test_a_full_disk_ends_a_run_with_one_line_and_the_next_goes_on(small_job):
    file = small_job()
    marks = {bird: [f"a beak {number} " * 20 for number in range(20)] for bird in ("blue jay", "red robin", "wren")}
    (file.parent / "marks.json").write_text(json.dumps(marks))
    call = [sys.executable, "-c", RUN_WITH_A_LIMIT, str(file)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    store = load_job(file).store
    assert f"describe: a file may not grow so large, writing {store}" in done.stderr
    assert "What is computed is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path(store).rglob(".tmp-*"))
    (result,) = run_job(load_job(file), quiet(), Cluster(), DESCRIBE)
    assert result.computed == 3


def test_a_full_disk_on_a_worker_is_told_as_well(ray):
    def write() -> None:
        with open("/dev/full", "wb") as file:  # a device that is always full
            file.write(b"features")

    with pytest.raises(OSError, match="space") as raised:
        ray.get(ray.remote(num_cpus=0, max_retries=0)(write).remote())
    told = no_space(raised.value, "encode_images", "runs/birds")
    assert str(told).startswith(
        "encode_images: no space left on the disk, writing runs/birds. What is computed is kept"
    )
    assert explain_failure(told) == str(told)
    assert no_space(OSError(13, "Permission denied", "a"), "encode_images", "runs/birds") is None
