"""The plan: stages in the order of what they read, and tables that start anew when what decides their rows changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pyarrow as pa
import pytest

from pipeline.job_file import load_job
from pipeline.plan import OF_SOME_JOBS, make_plan, stages_of
from stages.stage import Run

ALWAYS = ("describe", "encode_text", "encode_images", "score", "evaluate", "project")


def encoded(job) -> dict[str, str]:
    """Name -> fingerprint of the tables of encode_images."""
    return {table.name: table.fingerprint for table in make_plan(job).of("encode_images").tables}


def run_for(name: str = "run") -> Run:
    return Run(id=name, advance=lambda done, rejected: None, cluster=lambda: None)


def describe(job) -> None:
    """Let the stage describe compute, which needs no Ray."""
    plan = make_plan(job)
    stage = plan.of("describe")
    stage.stage.compute(stage.tables, plan.inputs, run_for())


def put_rows(table, keys) -> None:
    """Rows for these keys, as if they had been computed."""
    table.keeper.create({"stage": table.stage, "name": table.name, **table.ingredients.as_dict()})
    table.keeper.append(pa.table({"key": keys}), "run")


def table_of(job, stage: str, name: str):
    return next(table for table in make_plan(job).of(stage).tables if table.name == name)


def test_every_stage_comes_after_all_that_it_reads(small_job):
    order = [stage.name for stage in stages_of(load_job(small_job()))]
    assert sorted(order) == sorted([*ALWAYS, *OF_SOME_JOBS])
    for stage in stages_of(load_job(small_job())):
        assert all(order.index(read) < order.index(stage.name) for read in stage.reads)


def test_what_depends_on_descriptors_is_known_after_describe(small_job):
    job = load_job(small_job())
    plan = make_plan(job)
    unknown = {stage.stage.name: stage.unknown for stage in plan.stages}
    assert unknown["describe"] == unknown["encode_images"] == ""
    assert unknown["encode_text"] == "known after describe"
    assert unknown["score"].startswith("known after")
    assert unknown["evaluate"] == "known after score"
    assert not plan.done
    describe(job)
    after = make_plan(job)
    assert after.of("describe").done
    assert after.of("encode_text").unknown == after.of("score").unknown == after.of("evaluate").unknown == ""
    assert after.of("project").unknown.startswith("known after")


def test_a_plan_counts_wanted_present_and_missing_rows(small_job):
    job = load_job(small_job())
    table = table_of(job, "encode_images", "views.random")
    assert (len(table.wanted), table.present, len(table.missing)) == (6, 0, 6)
    put_rows(table, table.wanted[:4])
    table.keeper.reject([{"key": table.wanted[5].as_py(), "uri": "u", "reason": "r"}], "encode_images", "run")
    again = table_of(job, "encode_images", "views.random")
    assert (again.present, again.missing, again.rejected) == (4, again.wanted[4:5], {again.wanted[5].as_py()})


KEEPS = [
    {"views": {"random": {"kind": "random", "crops": 3}, "close": {"kind": "guided", "guide": "clip", "crops": 2}}},
    {
        "guides": {"attention": {"kind": "clip"}},
        "views": {
            "random": {"kind": "random", "crops": 3},
            "guided": {"kind": "guided", "guide": "attention", "crops": 2},
        },
    },
    {"methods": ["clip", {"name": "dnd", "label": "transport"}]},
    {"methods": [{"name": "dnd", "epsilon": 0.5}, "abs"]},
    {"resources": {"encode": {"batch": 2, "actors": 1}}},
    {"name": "other", "store": "runs/job"},
    {"max_rejects": 0.5, "evaluate": {"confidence": 0.9}},
]


@pytest.mark.parametrize("keys", KEEPS, ids=lambda keys: "-".join(keys))
def test_names_labels_methods_and_resources_are_no_part_of_what_decides_encoded_rows(small_job, keys):
    before = encoded(load_job(small_job()))
    assert sorted(encoded(load_job(small_job(**keys))).values()) == sorted(before.values())


STARTS_ANEW = [
    ("views.random.crops=4", {"views.random"}),
    ("views.random.min_area=0.2", {"views.random"}),
    ("views.guided.max_side=0.8", {"views.guided"}),
    ("views.guided.guide=center", {"views.guided"}),
    ("views.guided.feature_crops=false", {"views.guided"}),
    ("seed=1", {"views.random", "views.guided"}),
    ("model.precision=bf16", {"whole", "views.random", "views.guided"}),
]


@pytest.mark.parametrize(("override", "changed"), STARTS_ANEW)
def test_a_setting_starts_new_tables_for_what_it_decides_and_for_nothing_else(small_job, override, changed):
    path = small_job()
    before, after = encoded(load_job(path)), encoded(load_job(path, [override]))
    assert {name for name in before if before[name] != after[name]} == changed
    assert encoded(load_job(path)) == before


def test_other_weights_in_the_same_file_start_new_tables_for_images_and_texts(small_job, stub_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(stub_model, model)
    job = load_job(small_job(model={"name": f"local-dir:{model}"}))
    describe(job)
    before, texts = encoded(job), table_of(job, "encode_text", "texts").fingerprint
    (model / "open_clip_model.safetensors").write_bytes(b"other weights")
    assert not set(encoded(job).values()) & set(before.values())
    assert table_of(job, "encode_text", "texts").fingerprint != texts


def test_the_same_weights_elsewhere_keep_every_table(small_job, stub_model, tmp_path):
    before = encoded(load_job(small_job()))
    shutil.copytree(stub_model, tmp_path / "copy")
    assert encoded(load_job(small_job(model={"name": f"local-dir:{tmp_path / 'copy'}"}))) == before


def test_every_seed_has_its_own_table_and_shares_it_with_the_job_of_that_seed_alone(small_job):
    path = small_job()
    two = encoded(load_job(path, ["seed=[3, 4]"]))
    assert set(two) == {"whole", *(f"views.{view}.seed.{seed}" for view in ("random", "guided") for seed in (3, 4))}
    assert encoded(load_job(path, ["seed=4"]))["views.random"] == two["views.random.seed.4"]


def test_a_label_is_no_part_of_what_decides_predictions_but_a_setting_is(small_job):
    describe(load_job(small_job()))

    def scored(**method) -> str:
        job = load_job(small_job(methods=[{"name": "dnd", **method}]))
        return make_plan(job).of("score").tables[0].fingerprint

    assert scored() == scored(label="mine")
    assert scored() != scored(epsilon=0.2)


def test_a_changed_description_of_one_class_is_one_row_of_describe_and_new_predictions(small_job, tmp_path):
    job = load_job(small_job())
    describe(job)
    before = {table.name: table.fingerprint for table in make_plan(job).of("score").tables}
    marks = json.loads((tmp_path / "marks.json").read_text())
    (tmp_path / "marks.json").write_text(json.dumps(marks | {"wren": ["a cocked tail"]}))
    table = make_plan(job).of("describe").tables[0]
    assert [key.split("@")[0] for key in table.missing.to_pylist()] == ["wren"]
    describe(job)
    after = {table.name: table.fingerprint for table in make_plan(job).of("score").tables}
    assert {name for name in before if before[name] != after[name]} == {*before} - {"methods.clip", "methods.clip_e"}


def test_a_moved_data_set_keeps_its_keys(small_job, tmp_path):
    here = make_plan(load_job(small_job()))
    subprocess.run(["cp", "-rp", str(tmp_path / "photos"), str(tmp_path / "elsewhere")], check=True)
    there = make_plan(load_job(small_job(dataset={"path": "elsewhere"})))
    for before, after in zip(here.of("encode_images").tables, there.of("encode_images").tables, strict=True):
        assert (before.fingerprint, before.wanted) == (after.fingerprint, after.wanted)


def test_a_touched_image_is_a_new_row_and_the_others_keep_theirs(small_job, tmp_path):
    job = load_job(small_job())
    before = set(table_of(job, "encode_images", "whole").wanted.to_pylist())
    os.utime(tmp_path / "photos/wren/1.png", (1, 1))
    after = set(table_of(job, "encode_images", "whole").wanted.to_pylist())
    assert {key.split("@")[0] for key in before ^ after} == {"wren/1.png"}
    assert len(before & after) == 5


def test_an_image_that_several_tables_reject_is_told_once_and_only_while_it_is_wanted(small_job, tmp_path):
    job = load_job(small_job())
    for table in make_plan(job).of("encode_images").tables:
        refused = {"key": table.wanted[0].as_py(), "uri": "blue jay/0.png", "reason": "the file is empty"}
        table.keeper.reject([refused], "encode_images", "run")
    assert [row["reason"] for row in make_plan(job).rejects] == ["the file is empty"]
    (tmp_path / "photos/blue jay/0.png").unlink()
    assert make_plan(job).rejects == []


def test_unlabelled_images_have_no_evaluation(small_job, tmp_path, write_photos):
    write_photos(tmp_path / "flat", ["a.png", "b.png"])
    (tmp_path / "names.txt").write_text("blue jay\nred robin\nwren\n")
    job = load_job(small_job(dataset={"path": "flat", "classes": "names.txt"}))
    describe(job)
    plan = make_plan(job)
    assert plan.of("evaluate").tables == ()
    assert plan.of("evaluate").unknown == ""
    assert len(plan.of("score").tables) == sum(len(method.variants()) for method in job.methods)
