"""What calls of the command line start from: plans, the command to go on with, and variants that are all the same."""

from __future__ import annotations

import io
import shlex

import pytest
from rich.console import Console

import pipeline.plan
from pipeline.job_file import load_jobs
from pipeline.plan import make_plan
from pipeline.prepared import choose_variant, find_twins, prepare_jobs, prepare_one
from pipeline.run import Selection
from pipeline.run_sweep import run_variants
from pipeline.watch import LogWatcher

SWEEP = {"views.random.crops": [2, 3]}


def test_the_command_to_go_on_with_changes_the_file_as_this_call_did(small_job):
    job, sets = small_job(), ["seed=7", "methods=[clip, dnd]"]
    (prepared,) = prepare_jobs(job, sets)
    assert prepared.command() == f"fieldmark run {job} --set seed=7 --set 'methods=[clip, dnd]'"
    assert prepared.command(until="project") == prepared.command(), "all stages are a job's own"


def test_the_command_names_the_variant_that_was_asked_for_and_quotes_it_and_the_file(small_job):
    job = small_job(sweep={"seed": [[0, 1], 2]})
    job = job.rename(job.with_name("my job.yaml"))
    first, second = prepare_jobs(job, ())
    assert shlex.split(first.command()) == ["fieldmark", "run", str(job)]
    with_variant = ["fieldmark", "run", str(job), "--variant", "seed=[0, 1]"]
    assert shlex.split(prepare_one(job, (), "seed=[0, 1]").command()) == with_variant
    assert shlex.split(choose_variant([second, first], "seed=[0, 1]").command()) == with_variant
    assert shlex.split(first.command(until="project")) == [*with_variant, "--until", "project"]


def test_a_stopped_run_of_one_variant_says_how_to_go_on_with_that_one(fieldmark, small_job, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.run_sweep.run_job", stop)
    job = small_job(sweep=SWEEP)
    said = fieldmark("run", job, "--variant", "crops=3", "--set", "seed=4")
    assert said.status == 130
    assert f"Go on with: fieldmark run {job} --variant crops=3 --set seed=4" in said.err


@pytest.fixture
def listed(monkeypatch) -> list[str]:
    """The folders of the data sets that were listed, in order."""
    real, seen = pipeline.plan.read_manifest, []

    def read(dataset, cache):
        seen.append(dataset.path)
        return real(dataset, cache)

    monkeypatch.setattr(pipeline.plan, "read_manifest", read)
    return seen


def wanted(plan) -> dict[str, list[str]]:
    return {table.fingerprint: list(table.wanted) for stage in plan.stages for table in stage.tables}


def test_images_are_listed_once_however_many_variants_read_them(small_job, listed):
    job = small_job(sweep=SWEEP | {"seed": [0, 1]})
    prepared = prepare_jobs(job, ())
    assert len(listed) == 1
    for each in prepared:
        assert each.plan.inputs.names == make_plan(each.job).inputs.names
        assert wanted(each.plan) == wanted(make_plan(each.job))


def test_each_data_set_of_a_sweep_is_listed(small_job, write_photos, listed):
    job = small_job(sweep={"seed": [0, 1], "dataset.path": ["photos", "others"]}, methods=["clip"], descriptors=None)
    write_photos(job.parent / "others", ["wren/1.png"])
    plans = [each.plan for each in prepare_jobs(job, ())]
    assert len(listed) == 2
    assert [len(plan.inputs.manifest) for plan in plans] == [6, 1, 6, 1]


def test_variants_are_checked_before_a_run_with_one_listing(small_job, listed, monkeypatch):
    monkeypatch.setattr("pipeline.run_sweep.run_job", lambda *arguments: [])
    watcher = LogWatcher(Console(file=io.StringIO()))
    run_variants(load_jobs(small_job(sweep=SWEEP)), watcher, None, Selection(), lambda variant: None)
    assert len(listed) == 1


def test_variants_of_a_key_that_no_method_reads_are_told_once_it_is_known(fieldmark, small_job):
    job = small_job(sweep=SWEEP, methods=["clip", "abs"])
    assert find_twins(prepare_jobs(job, ())) == [], "not known before the stages that score reads"
    told = "sweep: 'crops=2', 'crops=3' make the same predictions: no method reads what is swept"
    for call in (["run", job, "--only", "describe"], ["run", job, "--dry-run"], ["status", job]):
        assert fieldmark(*call).err.count(told) == 1
    assert told not in fieldmark("status", job, "--set", "methods=[clip, dnd]").err


def test_results_of_images_without_labels_say_so_and_name_predict(fieldmark, small_job, write_photos):
    job = small_job(dataset={"path": "flat", "classes": "names.txt"}, methods=["clip"])
    write_photos(job.parent / "flat", ["1.png", "2.png"])
    (job.parent / "names.txt").write_text("blue jay\nred robin\nwren\n")
    assert fieldmark("run", job, "--only", "describe").status == 0
    said = fieldmark("results", job)
    assert (said.status, said.out) == (1, "")
    assert f"no image has a label, so there is no accuracy. Predictions: fieldmark predict {job}" in said.err
    said = fieldmark("results", job, "--set", "sweep.seed=[0, 1]")
    assert f"fieldmark predict {job} --variant seed=0 --set 'sweep.seed=[0, 1]'" in said.err
