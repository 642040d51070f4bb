"""A run: which stages are chosen, what a finished one does again, and how a failure is told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.run import Selection, explain_failure, run_job
from pipeline.watch import LogWatcher
from stages.stage import TooManyRejects
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
        (stage.stage.name, 0) for stage in make_plan(job).stages
    ]
    assert not cluster.started
    assert read_records(job.store) == before


def test_the_record_of_a_run_says_what_was_run_and_where_the_database_is(finished_job):
    job = load_job(finished_job)
    record = read_records(job.store)[-1]
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
    (record,) = read_records(load_job(finished_job).store)
    phases = {stage["stage"]: stage["phases"] for stage in record["stages"]}
    assert set(phases["encode_images"]) == {"copy", "crop", "decode", "encode", "feature_crop", "guide", "write"}
    assert phases["encode_images"]["encode"] > 0
    assert phases["score"] == {}
