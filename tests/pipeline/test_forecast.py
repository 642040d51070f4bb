"""What a run would take: rows, forward passes and bytes from the plan, time from what runs of the store took."""

from __future__ import annotations

import json
import os

import pyarrow as pa
import pytest

from pipeline.forecast import Forecast, forecast, together, work
from pipeline.job_file import load_job
from pipeline.plan import OF_SOME_JOBS, make_plan
from pipeline.show import status_rows
from pipeline.why import Why
from stages.encode_images import describe_table
from stages.stage import Run
from storage.records import write_record

PASSES = 6 * (1 + 3 + 2)
"""Of the small job: six images, each whole and in three random and two guided crops."""


def foretold(job, *records) -> dict[str, Forecast]:
    """The forecast of a job by stage; of its store's records where none are given."""
    plan, why = make_plan(job), Why(job.store)
    return {each.stage: each for each in forecast(plan, job, status_rows(plan, why), records or why.records)}


def record(job, stage: str, work: int, seconds: float, busy: float = 0.0, **more) -> dict:
    """The record of a run in which this stage did so much work."""
    did = {"stage": stage, "computed": 1, "work": work, "seconds": seconds, "phases": {"encode": busy} if busy else {}}
    made = {"started": "2026-03-04T14:05:00+00:00", "settings": job.model_dump(mode="json"), "hardware": {"cores": 2}}
    return made | {"stages": [did], "ending": "done", "tables": {}} | more


def describe(job) -> None:
    plan = make_plan(job)
    run = Run(id="run", advance=lambda done, rejected: None, cluster=lambda: None)
    plan.of("describe").stage.compute(plan.of("describe").tables, plan.inputs, run)


def test_without_a_run_there_are_rows_and_forward_passes_and_no_time(small_job):
    found = foretold(load_job(small_job()))
    stages = [stage.stage.name for stage in make_plan(load_job(small_job())).stages]
    assert list(found) == [name for name in stages if name not in OF_SOME_JOBS]
    encode = found["encode_images"]
    assert (encode.rows, encode.forward_passes, encode.seconds) == (18, PASSES, None)
    assert encode.basis == "no run of this store to go by"
    assert (found["describe"].rows, found["describe"].forward_passes) == (3, None)
    assert found["score"] == Forecast("score", None, None, None, None, "known after encode_text")


def test_work_is_what_decides_a_stages_time(small_job):
    job = load_job(small_job(methods=["clip", "dnd"]))
    describe(job)
    plan = make_plan(job)
    done = {stage.stage.name: work(stage.stage.name, stage.tables) for stage in plan.stages}
    texts = len(plan.of("encode_text").tables[0].wanted)
    assert done == {
        "describe": 0, "encode_images": PASSES, "encode_text": texts, "score": 6 * 2, "evaluate": 3, "project": 0,
    } | dict.fromkeys(OF_SOME_JOBS, 0)  # fmt: skip


def test_only_what_is_missing_counts(small_job):
    job = load_job(small_job())
    whole = make_plan(job).of("encode_images").tables[0]
    whole.keeper.create(describe_table(whole))
    whole.keeper.append(pa.table({"key": whole.wanted.slice(0, 4)}), "run")
    encode = foretold(job)["encode_images"]
    assert (encode.rows, encode.forward_passes) == (14, PASSES - 4)


def test_time_is_by_the_work_of_a_former_run_with_the_same_model(small_job):
    job = load_job(small_job())
    former = record(job, "encode_images", 10 * PASSES, 90.0, busy=70.0)
    encode = foretold(job, former)["encode_images"]
    assert encode.seconds == pytest.approx(20 + 7)
    assert encode.basis.startswith("by the run of 4 Mar")
    assert "20 s of it to start" in encode.basis
    other = load_job(small_job(), ["model.precision=bf16"])
    encode = foretold(other, former)["encode_images"]
    assert encode.seconds is None
    assert encode.basis == f"no run of this store with model {job.model.name} in bf16 to go by"


def test_a_run_of_ten_rows_does_not_foretell_hours_for_its_start(small_job):
    job = load_job(small_job())
    tiny = record(job, "encode_images", 2, 30.0, busy=0.2)
    encode = foretold(job, tiny)["encode_images"]
    assert encode.seconds == pytest.approx(29.8 + 0.1 * PASSES)


def test_a_small_run_is_said_to_be_one(small_job):
    job = load_job(small_job(), ["views.random.crops=900"])
    assert "a small one" in foretold(job, record(job, "encode_images", 50, 30.0, busy=5.0))["encode_images"].basis
    assert "small" not in foretold(job, record(job, "encode_images", 500, 30.0, busy=5.0))["encode_images"].basis


def test_a_stage_without_phases_has_its_start_told_by_a_small_and_a_large_run(small_job):
    job = load_job(small_job(methods=["clip", "dnd"]))
    describe(job)
    runs = [record(job, "score", 12, 5.06), record(job, "score", 1212, 11.06)]
    assert foretold(job, *runs)["score"].seconds == pytest.approx(5.06)
    assert foretold(job, runs[1])["score"].seconds == pytest.approx(12 * 11.06 / 1212), "a run alone counts whole"


def test_runs_of_other_hardware_or_methods_or_that_computed_nothing_say_nothing(small_job):
    job = load_job(small_job(methods=["clip", "dnd"]))
    describe(job)
    old = record(job, "score", 12, 100.0, hardware={"cores": 64})
    idle = record(job, "score", 0, 0.0)
    assert foretold(job, old, record(job, "score", 12, 6.0), idle)["score"].seconds == pytest.approx(6.0)
    fewer = record(load_job(small_job(methods=["clip"])), "score", 6, 6.0)
    assert foretold(job, fewer)["score"].basis == "no run of this store with these methods to go by"


def test_bytes_are_by_the_models_configuration_until_there_are_rows(small_job, tiny_model):
    job = load_job(small_job(model={"name": f"local-dir:{tiny_model}"}))
    first = foretold(job)["encode_images"].bytes
    assert 18 * 64 < first < 18 * 1000
    wide = load_job(small_job(model={"name": f"local-dir:{tiny_model}"}), ["views.random.crops=300"])
    assert foretold(wide)["encode_images"].bytes - first == 6 * 297 * (2 * 24 + 4 + 16)
    whole = make_plan(job).of("encode_images").tables[0]
    whole.keeper.create(describe_table(whole))
    rows = {"key": whole.wanted.slice(0, 2), "filler": ["x" * 100_000] * 2}
    whole.keeper.append(pa.table(rows), "run")
    assert foretold(job)["encode_images"].bytes > 4 * 100_000


def test_the_bytes_foretold_are_about_those_of_a_real_run(finished_job):
    """Shards of five rows have as much of a frame as of rows: without it the forecast must be right."""
    job = load_job(finished_job)
    plan = make_plan(job)
    new = load_job(finished_job, ["seed=7"])
    stored = {table.name: table.keeper.read().nbytes for table in plan.of("encode_images").tables}
    told = foretold(new)["encode_images"].bytes
    assert told == pytest.approx(stored["views.random"] + stored["views.guided"], rel=0.2)


def test_a_model_that_must_be_downloaded_has_no_bytes_yet(small_job):
    from pipeline.forecast import _embedding_size

    assert _embedding_size("hf-hub:owner/model") is None
    assert _embedding_size("ViT-B-32") == 512


def test_forecasts_of_several_jobs_add_up_stage_by_stage():
    one = Forecast("score", 10, None, 100, 5.0, "by a")
    two = Forecast("score", 30, None, None, 7.0, "by b")
    assert together([one, two]) == [Forecast("score", 40, None, None, 12.0, "by b")]
    assert together([]) == []


def test_a_run_writes_what_a_forecast_goes_by(finished_job):
    """The record of the real run says the work that was done, and so the next view set's time can be told."""
    did = {stage["stage"]: stage["work"] for stage in Why(load_job(finished_job).store).records[0]["stages"]}
    assert (did["encode_images"], did["score"]) == (13 * (1 + 3 + 2), 12 * 5)
    assert did["project"] >= 12 * (1 + 3 + 2)
    job = load_job(finished_job, ["views.random.crops=5"])
    encode = foretold(job)["encode_images"]
    assert (encode.rows, encode.forward_passes) == (13, 65), "the rejected file is tried in a new table"
    assert encode.seconds > 0
    assert encode.basis.startswith("by the run of")


def test_a_dry_run_tells_the_forecast_in_json_and_to_people(fieldmark, small_job):
    path = small_job()
    job = load_job(path)
    write_record(job.store, "1", record(job, "encode_images", 10 * PASSES, 72_020.0, busy=72_000.0))
    told = json.loads(fieldmark("run", path, "--dry-run", "--json").out)["forecast"]
    (encode,) = [each for each in told if each["stage"] == "encode_images"]
    assert encode["seconds"] == pytest.approx(7220)
    assert (encode["rows"], encode["forward_passes"]) == (18, PASSES)
    assert set(encode) == {"stage", "rows", "forward_passes", "bytes", "seconds", "basis"}
    said = fieldmark("run", path, "--dry-run").out
    assert "about 2 h 00 min" in said
    assert "known after encode_text" in said
    said = fieldmark("run", path, "--dry-run", "--only", "describe").out
    assert "encode_images" not in said
    assert "not known  no run of this store to go by" in " ".join(said.split(" "))


def test_a_dry_run_counts_forced_rows_and_has_nothing_to_say_of_a_finished_job(fieldmark, finished_job):
    told = json.loads(fieldmark("run", finished_job, "--force", "score", "--dry-run", "--json").out)["forecast"]
    assert [(each["stage"], each["rows"]) for each in told] == [("score", 5 * 12)]
    assert told[0]["bytes"] > 0
    assert "a run has nothing to do" in fieldmark("run", finished_job, "--dry-run").out


def test_a_sweep_counts_a_table_of_several_variants_once(fieldmark, small_job):
    views = {"random": {"kind": "random"}}
    path = small_job(sweep={"views.random.crops": [2, 3]}, methods=["clip", "dnd"], views=views)
    two, three = json.loads(fieldmark("run", path, "--dry-run", "--json").out)["variants"]
    passes = [
        each["forward_passes"]
        for variant in (two, three)
        for each in variant["forecast"]
        if each["stage"] == "encode_images"
    ]
    assert passes == [6 * (1 + 2), 6 * 3]
    assert f"{6 * (1 + 2 + 3)} " in fieldmark("run", path, "--dry-run").out


NEWER = "newer code makes these tables anew, though no setting has changed"


@pytest.fixture
def newer_code(small_job, monkeypatch):
    """`newer_code(seconds)`: a job whose images were encoded by older code, with a run that took so long an image."""

    def make(seconds: float) -> os.PathLike:
        from stages.encode_images import EncodeImages

        path = small_job(methods=["clip"], views=None, descriptors=None)
        job = load_job(path)
        (whole,) = make_plan(job).of("encode_images").tables
        whole.keeper.create(describe_table(whole))
        whole.keeper.append(pa.table({"key": whole.wanted}), "run")
        write_record(job.store, "1", record(job, "encode_images", 6, 6 * seconds))
        monkeypatch.setattr(EncodeImages, "version", EncodeImages.version + 1)
        return path

    return make


@pytest.fixture
def computed(monkeypatch):
    """What was computed, by name of the job, in place of Ray."""
    from pipeline import run_sweep

    names = []
    monkeypatch.setattr(run_sweep, "run_job", lambda job, *rest: names.append(job.name) or [])
    return names


def test_newer_code_that_makes_much_anew_is_told_of_and_without_a_terminal_goes_on(newer_code, computed, fieldmark):
    said = fieldmark("run", newer_code(200.0))
    assert said.status == 0
    assert computed == ["job"]
    assert NEWER in said.err
    assert "encode_images/whole: the code of encode_images changed" in said.err
    assert "about 20 min" in said.err


ANSWERS = [("n\n", 1, []), ("\n", 1, []), ("", 1, []), ("y\n", 0, ["job"])]


@pytest.mark.parametrize(("answer", "status", "runs"), ANSWERS)
def test_newer_code_asks_first_on_a_terminal(newer_code, computed, fieldmark, terminal, answer, status, runs):
    path = newer_code(200.0)
    terminal(answer)
    said = fieldmark("run", path)
    assert (said.status, computed) == (status, runs)
    assert "compute them anew? [y/N]" in said.err
    assert ("nothing was computed" in said.err) == (status == 1)
    assert said.out == ""


def test_yes_answers_beforehand(newer_code, computed, fieldmark, terminal):
    path = newer_code(200.0)
    terminal("")
    said = fieldmark("run", path, "--yes")
    assert (said.status, computed) == (0, ["job"])
    assert NEWER in said.err
    assert "[y/N]" not in said.err


def test_newer_code_that_costs_seconds_or_other_stages_is_no_question(newer_code, computed, fieldmark):
    path = newer_code(200.0)
    assert NEWER not in fieldmark("run", path, "--only", "describe").err
    assert NEWER not in fieldmark("run", newer_code(2.0)).err
    assert computed == ["job", "job"]
