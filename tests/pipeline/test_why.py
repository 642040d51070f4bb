"""Why rows are missing: in the words of the job file, and with what is new, changed, gone or not reached told apart."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow as pa
import pytest

from pipeline.changes import changes
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.why import Why, why_missing
from stages.encode_images import describe_table
from stages.stage import Run
from storage.leases import Claims
from storage.records import write_record


def describe(job) -> None:
    """Let the stage describe compute, which needs no Ray."""
    plan = make_plan(job)
    run = Run(id="run", advance=lambda done, rejected: None, cluster=lambda: None)
    plan.of("describe").stage.compute(plan.of("describe").tables, plan.inputs, run)


def table_of(job, stage: str, name: str):
    return next(table for table in make_plan(job).of(stage).tables if table.name == name)


def put_rows(table, keys) -> None:
    """Rows for these keys, as if they had been computed."""
    table.keeper.create(describe_table(table))
    table.keeper.append(pa.table({"key": keys}), "run")


def note_run(job, run: str, ending: str, *stages: str) -> None:
    """The record of a run of this job that came to the end of these stages."""
    tables = {f"{table.stage}/{table.name}": table.fingerprint for s in make_plan(job).stages for table in s.tables}
    write_record(job.store, run, {"ending": ending, "tables": tables, "stages": [{"stage": name} for name in stages]})


def why(job, stage: str, name: str) -> str:
    return why_missing(table_of(job, stage, name), job.store)


def made(path, *overrides: str, stage: str = "encode_images") -> None:
    """All rows of a stage, as if a run with these settings had computed them and come to its end."""
    job = load_job(path, overrides)
    describe(job)
    for table in make_plan(job).of(stage).tables:
        put_rows(table, table.wanted)
    note_run(job, "1", "done", "describe", stage)


def test_a_table_that_never_was_is_not_made_yet_and_one_that_is_whole_lacks_nothing(small_job):
    path = small_job()
    assert why(load_job(path), "encode_images", "views.random") == "not made yet"
    made(path)
    assert why(load_job(path), "encode_images", "views.random") == ""


SETTINGS = [
    ("views.random.crops=4", "views.random", "views.random.crops 3 -> 4"),
    ("seed=2", "views.random", "seed 0 -> 2"),
    ("model.precision=bf16", "whole", "model.precision fp32 -> bf16"),
    ("decode=full", "whole", "decode reduced -> full"),
    ("views.random={kind: squares, crops: 2}", "views.random", "views.random.kind random -> squares"),
    ("views.guided.guide=center", "views.guided", "views.guided.guide clip -> center"),
]


@pytest.mark.parametrize(("override", "name", "told"), SETTINGS)
def test_a_changed_setting_is_told_as_the_job_file_has_it(small_job, override, name, told):
    path = small_job(methods=["clip"])
    made(path)
    said = why(load_job(path, [override]), "encode_images", name)
    assert said == f"{told}: encode_images starts a new table; 6 images"


def test_several_changed_settings_are_clauses_of_one_line(small_job):
    path = small_job()
    made(path)
    job = load_job(path, ["views.random.crops=4", "views.random.min_area=0.2"])
    table = table_of(job, "encode_images", "views.random")
    assert Why(job.store).reasons(table) == ["views.random.crops 3 -> 4", "views.random.min_area 0.1 -> 0.2"]
    assert "crops 3 -> 4; views.random.min_area 0.1 -> 0.2: encode_images starts" in why_missing(table, job.store)


def test_a_table_is_compared_with_the_one_of_its_name_that_is_nearest_and_of_several_with_the_newest(small_job):
    path = small_job(methods=["clip"])
    for crops, moment in ((3, 2_000_000_000), (5, 1_000_000_000)):
        made(path, f"views.random.crops={crops}")
        table = table_of(load_job(path, [f"views.random.crops={crops}"]), "encode_images", "views.random")
        for shard in os.listdir(table.keeper.folder):
            os.utime(os.path.join(table.keeper.folder, shard), (moment, moment))

    def reasons(*overrides: str) -> list[str]:
        job = load_job(path, overrides)
        return Why(job.store).reasons(table_of(job, "encode_images", "views.random"))

    assert reasons("views.random.crops=4") == ["views.random.crops 3 -> 4"]
    assert reasons("views.random.crops=5", "views.random.max_area=0.5") == ["views.random.max_area 0.75 -> 0.5"]


def test_new_changed_and_deleted_images_are_told_apart(small_job, write_photos, tmp_path):
    path = small_job()
    made(path)
    write_photos(tmp_path / "photos", ["wren/7.png", "wren/8.png"])
    os.utime(tmp_path / "photos/wren/1.png", (1, 1))
    (tmp_path / "photos/wren/0.png").unlink()
    job = load_job(path)
    assert why(job, "encode_images", "whole") == "2 new images; 1 changed image"
    assert Why(job.store).unread(table_of(job, "encode_images", "whole")) == 1, "not the older row of the changed one"


def test_images_with_an_at_sign_in_their_names_are_told_apart_too(small_job, write_photos, tmp_path):
    write_photos(tmp_path / "photos", ["wren/me@home.png"])
    path = small_job()
    made(path)
    os.utime(tmp_path / "photos/wren/me@home.png", (1, 1))
    write_photos(tmp_path / "photos", ["wren/me@work.png"])
    assert why(load_job(path), "encode_images", "whole") == "1 new image; 1 changed image"


def test_what_the_last_run_did_not_reach_is_no_news(small_job, tmp_path):
    job = load_job(small_job())
    whole = table_of(job, "encode_images", "whole")
    put_rows(whole, whole.wanted.slice(0, 2))
    assert why(job, "encode_images", "whole") == "4 of 6 images were not reached by the last run", "killed at once"
    note_run(job, "1", "interrupted", "describe")
    note_run(job, "2", "done", "describe")  # --only describe says nothing of it
    os.utime(tmp_path / "photos/blue jay/0.png", (1, 1))
    assert why(job, "encode_images", "whole") == "4 of 6 images were not reached by the last run; 1 changed image"
    note_run(job, "3", "done", "describe", "encode_images")
    assert why(job, "encode_images", "whole") == "4 new images; 1 changed image"


def test_rows_that_a_living_run_has_not_come_to_are_still_to_come(small_job):
    job = load_job(small_job())
    whole = table_of(job, "encode_images", "whole")
    put_rows(whole, whole.wanted.slice(0, 2))
    note_run(job, "1", "running")
    with Claims(job.store, "1", {"job": "job"}) as claims:
        claims.take(["encode_images/any"])
        assert why(job, "encode_images", "whole") == "4 of 6 images are still to come in the run that is going on"
    assert why(job, "encode_images", "whole") == "4 of 6 images were not reached by the last run"


def test_new_classes_and_changed_descriptors_are_told_by_name(small_job, tmp_path, write_photos):
    job = load_job(small_job())
    describe(job)
    marks = json.loads((tmp_path / "marks.json").read_text())
    more = {name: ["grey"] for name in ("heron", "stork")}
    (tmp_path / "marks.json").write_text(json.dumps(marks | more | {"wren": ["a cocked tail"]}))
    write_photos(tmp_path / "photos", ["heron/0.png", "stork/0.png"])
    assert why(job, "describe", "descriptors.marks") == (
        "2 new classes: heron, stork; descriptors of 1 class changed: wren"
    )


def test_a_long_list_of_names_is_cut(small_job, tmp_path, write_photos):
    job = load_job(small_job())
    describe(job)
    marks = json.loads((tmp_path / "marks.json").read_text())
    names = [f"bird {number}" for number in range(8)]
    (tmp_path / "marks.json").write_text(json.dumps(marks | {name: ["grey"] for name in names}))
    write_photos(tmp_path / "photos", [f"{name}/0.png" for name in names])
    assert why(job, "describe", "descriptors.marks").endswith("bird 3, bird 4 and 3 more")


def test_a_changed_setting_of_a_method_is_told_under_its_label(small_job):
    path = small_job(methods=["clip", {"name": "dnd", "label": "sharp"}])
    made(path, stage="score")
    said = why(load_job(path, ["methods.sharp.epsilon=0.5"]), "score", "methods.sharp")
    assert said == "methods.sharp.epsilon 0.1 -> 0.5: score starts a new table; 6 images"


def test_another_method_under_a_name_is_told_by_its_name_alone(small_job):
    made(small_job(methods=[{"name": "dnd", "label": "best"}]), stage="score")
    job = load_job(small_job(methods=[{"name": "crops_mean", "label": "best"}]))
    assert Why(job.store).reasons(table_of(job, "score", "methods.best")) == ["methods.best.name dnd -> crops_mean"]


def test_predictions_from_other_crops_name_the_view_set(small_job):
    path = small_job(methods=["clip", "dnd"])
    made(path, stage="score")
    job = load_job(path, ["views.random.crops=4"])
    assert why(job, "score", "methods.dnd") == (
        "encode_images/views.random is another table: score starts a new table; 6 images"
    )
    assert why(job, "score", "methods.clip") == ""


def test_a_method_that_reads_another_view_set_is_told_so(small_job):
    path = small_job(methods=[{"name": "dnd", "views": "random"}])
    made(path, stage="score")
    job = load_job(path, ["methods.dnd.views=guided"])
    assert Why(job.store).reasons(table_of(job, "score", "methods.dnd")) == ["methods.dnd.views random -> guided"]


def test_new_classes_of_a_job_without_descriptors_are_told_where_predictions_start_anew(
    small_job, write_photos, tmp_path
):
    path = small_job(methods=["clip"], descriptors=None, views=None)
    made(path, stage="score")
    write_photos(tmp_path / "photos", ["heron/0.png"])
    assert why(load_job(path), "score", "methods.clip") == ("1 class is new: heron: score starts a new table; 7 images")


def test_another_model_is_told_by_its_name_and_other_weights_under_that_name_as_such(small_job, stub_model, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(stub_model, tmp_path / name)
    (tmp_path / "two/open_clip_model.safetensors").write_bytes(b"others")
    path = small_job(model={"name": f"local-dir:{tmp_path / 'one'}"}, methods=["clip", "dnd"])
    made(path)
    made(path, stage="score")
    other = load_job(path, [f"model.name=local-dir:{tmp_path / 'two'}"])
    told = f"model.name local-dir:{tmp_path / 'one'} -> local-dir:{tmp_path / 'two'}"
    for stage, name in (("encode_images", "views.guided"), ("score", "methods.dnd")):
        assert Why(other.store).reasons(table_of(other, stage, name)) == [told]
    (tmp_path / "one/open_clip_model.safetensors").write_bytes(b"changed")
    assert Why(other.store).reasons(table_of(load_job(path), "encode_images", "whole")) == [
        "the model's weights changed"
    ]


def test_newer_code_is_told_with_its_versions_and_known_to_be_the_only_reason(small_job, monkeypatch):
    path = small_job()
    made(path)
    from stages.encode_images import EncodeImages

    before, after = EncodeImages.version, EncodeImages.version + 1
    monkeypatch.setattr(EncodeImages, "version", after)
    job = load_job(path)
    whole = table_of(job, "encode_images", "whole")
    assert why_missing(whole, job.store) == (
        f"the code of encode_images changed (version {before} -> {after}): encode_images starts a new table; 6 images"
    )
    assert Why(job.store).is_newer_code_alone(whole)
    both = table_of(load_job(path, ["views.random.crops=4"]), "encode_images", "views.random")
    assert not Why(job.store).is_newer_code_alone(both)
    put_rows(whole, whole.wanted.slice(0, 1))
    whole = table_of(job, "encode_images", "whole")
    assert not Why(job.store).is_newer_code_alone(whole), "begun, and so agreed to"


def test_the_code_of_a_method_is_told_from_that_of_its_stage(small_job):
    path = small_job(methods=["dnd"])
    describe(load_job(path))
    new = describe_table(table_of(load_job(path), "score", "methods.dnd"))
    stage, method = divmod(new["version"], 100)
    assert changes(new | {"version": new["version"] - 1}, new) == [
        f"the code of methods.dnd changed (version {method - 1} -> {method})"
    ]
    assert changes(new | {"version": new["version"] - 100}, new) == [
        f"the code of score changed (version {stage - 1} -> {stage})"
    ]
    assert changes(new, new) == []


def test_results_say_whether_labels_predictions_or_settings_changed(finished_job):
    plan = make_plan(load_job(finished_job))
    row = describe_table(next(table for table in plan.of("evaluate").tables if table.name == "methods.abs"))
    settings = row["settings"] | {"evaluate.bootstrap": 100}
    old = row | {"whole": row["whole"] | {"labels": "others"}, "settings": settings}
    assert changes(old, row) == ["evaluate.bootstrap 100 -> 2000", "images or labels changed"]
    assert changes(row | {"whole": row["whole"] | {"score": "others"}}, row) == ["its predictions are new"]


def test_a_database_says_which_of_its_tables_changed_or_that_it_is_another(finished_job, tmp_path):
    shutil.copytree(finished_job.parent, tmp_path / "copy")  # which moves the images' addresses
    path = tmp_path / "copy/job.yaml"
    assert why(load_job(path), "project", "lancedb") == "images changed since"
    fewer = load_job(path, ["methods=[clip, dnd]", "views={random: {kind: random, crops: 3}}"])
    assert why(fewer, "project", "lancedb") == "shows tables that no database shows yet: starts a new one"
    shutil.rmtree(tmp_path / "copy/runs/birds/lance")
    assert why(load_job(path), "project", "lancedb") == "not made yet"
