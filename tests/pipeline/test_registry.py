"""The registry: which tables a store's jobs read, as they ran last."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.cluster import Cluster
from pipeline.job_file import load_job, load_jobs
from pipeline.plan import make_plan
from pipeline.registry import Origin, Registry, forget, registered
from pipeline.run import Selection, run_job
from pipeline.run_sweep import run_variants
from pipeline.watch import LogWatcher

DESCRIBE = Selection(only="describe")


def run(job_file, *sets: str, said: io.StringIO | None = None) -> None:
    watcher = LogWatcher(Console(file=said or io.StringIO(), width=1000))
    run_job(load_job(job_file, sets), watcher, Cluster(), DESCRIBE, Origin(str(job_file)))


def test_a_job_that_ran_is_registered_with_its_file_its_settings_and_its_tables(small_job):
    file = small_job(name="birds")
    run(file)
    job = load_job(file)
    (entry,) = registered(job.store)
    assert (entry["job"], entry["variant"], entry["file"], entry["database"]) == ("birds", None, str(file), None)
    assert entry["settings"]["views"]["random"]["crops"] == 3
    (described,) = make_plan(job).of("describe").tables
    assert entry["tables"]["describe/descriptors.marks"] == described.fingerprint


def test_the_tables_of_stages_that_are_not_known_yet_are_those_of_before(small_job):
    file = small_job()
    run(file)
    job = load_job(file)
    registry, plan = Registry(job, Origin(str(file))), make_plan(job)
    registry.register(plan, "r1")
    before = registered(job.store)[0]["tables"]
    assert any(name.startswith("score/") for name in before)
    (file.parent / "marks.json").write_text('{"blue jay": ["x"], "red robin": ["y"], "wren": ["z"]}')
    changed = make_plan(job)
    assert changed.of("score").unknown
    assert not Registry(job, Origin(str(file))).outdated(changed)
    Registry(job, Origin(str(file))).register(changed, "r2")
    assert registered(job.store)[0]["tables"] == before


def test_another_setting_makes_the_entry_outdated_and_going_back_does_so_again(small_job):
    file = small_job()
    run(file)
    other = load_job(file, ["views.random.crops=4"])
    assert not Registry(load_job(file), Origin(str(file))).outdated(make_plan(load_job(file)))
    assert Registry(other, Origin(str(file))).outdated(make_plan(other))
    run(file, "views.random.crops=4")
    assert Registry(load_job(file), Origin(str(file))).outdated(make_plan(load_job(file)))


def test_two_job_files_of_one_name_are_told_and_neither_takes_the_others_place(small_job, tmp_path):
    first = small_job(name="birds", store="runs/shared")
    second = first.with_name("again.yaml")
    second.write_text(first.read_text().replace("crops: 3", "crops: 4"))
    said = io.StringIO()
    run(first)
    run(second, said=said)
    told = f"job birds of {first} is registered here too; give one of them another name"
    assert told in said.getvalue()
    entries = registered(load_job(first).store)
    assert {entry["file"] for entry in entries} == {str(first), str(second)}
    assert not Registry(load_job(first), Origin(str(first))).outdated(make_plan(load_job(first)))
    assert not Registry(load_job(second), Origin(str(second))).outdated(make_plan(load_job(second)))
    said = io.StringIO()
    first.unlink()
    run(second, "views.random.crops=5", said=said)
    assert "registered here too" not in said.getvalue()


def test_variants_of_a_sweep_are_registered_each_and_forgotten_together(small_job):
    file = small_job(name="birds", sweep={"views.random.crops": [2, 3]}, methods=["clip", "dnd"])
    variants = load_jobs(file)
    watcher = LogWatcher(Console(file=io.StringIO()))
    run_variants(variants, watcher, None, DESCRIBE, lambda variant: None, str(file))
    store = variants[0].job.store
    entries = registered(store)
    assert sorted((entry["job"], entry["variant"]) for entry in entries) == [("birds", "crops=2"), ("birds", "crops=3")]
    assert forget(store, "bird") == 0
    assert forget(store, "birds") == 2
    assert registered(store) == []


def test_a_broken_entry_is_named_and_not_taken_for_none(small_job, tmp_path):
    file = small_job()
    run(file)
    (path,) = (tmp_path / "runs").glob("*/jobs/*.json")
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{path.name} is no registered job"):
        registered(load_job(file).store)
