"""score: which tables there are, and which classes may be predicted."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from stages.manifest import SCHEMA
from stages.score import classes_to_predict
from stages.stage import Inputs, Run

NAMES = {"crane (1)": "crane", "jay": "jay", "crane (3)": "crane", "blue_tit": "blue tit", "great_auk (1)": "great auk"}


def inputs(*labels: tuple[str, str | None]) -> Inputs:
    """The classes of `NAMES`, and an image for each (split, class)."""
    rows = [
        {"key": f"{n}@1", "id": str(n), "version": "1", "uri": str(n), "split": split, "class": label}
        for n, (split, label) in enumerate(labels)
    ]
    return Inputs(".", pa.Table.from_pylist(rows, SCHEMA), NAMES, {})


def test_labelled_classes_are_those_of_query_images_in_the_order_of_the_job():
    known = inputs(("query", "crane (3)"), ("query", "jay"), ("support", "blue_tit"), ("query", None))
    assert classes_to_predict("all", known) == tuple(NAMES)
    assert classes_to_predict("labelled", known) == ("jay", "crane (3)")
    with pytest.raises(ValueError, match=r"score\.classes: labelled, but no query image has a label"):
        classes_to_predict("labelled", inputs(("support", "jay"), ("query", None)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jay\ncrane\n", ("crane (1)", "jay", "crane (3)")),
        ("crane (3)\nblue tit\n", ("crane (3)", "blue_tit")),
        ("blue_tit\n", ("blue_tit",)),
        ("great_auk (1)\n", ("great_auk (1)",)),
    ],
)
def test_a_name_in_a_file_stands_for_every_class_that_is_called_so(tmp_path, text, expected):
    (tmp_path / "some.txt").write_text(text)
    assert classes_to_predict(str(tmp_path / "some.txt"), inputs()) == expected


def test_a_file_that_is_missing_or_names_a_stranger_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"score\.classes: no file .*none\.txt"):
        classes_to_predict(str(tmp_path / "none.txt"), inputs())
    (tmp_path / "some.txt").write_text("jay\nowl\n")
    with pytest.raises(ValueError, match=r"score\.classes: .*some\.txt names owl, which is no class"):
        classes_to_predict(str(tmp_path / "some.txt"), inputs())


def describe(job_file) -> None:
    """Let the stage describe compute, which needs no Ray."""
    plan = make_plan(load_job(job_file))
    stage = plan.of("describe")
    stage.stage.compute(stage.tables, plan.inputs, Run("run", lambda done, rejected: None, lambda: None))


def scored(job_file):
    return make_plan(load_job(job_file)).of("score")


def test_a_table_is_kept_for_each_seed_of_the_crops_and_each_draw_of_the_method(small_job):
    job = small_job(
        seed=[0, 1],
        methods=["clip", {"name": "waffle", "seeds": [3, 4]}, {"name": "wca", "sample": 2, "seeds": [5, 6]}, "dnd"],
    )
    describe(job)
    names = [table.name.removeprefix("methods.") for table in scored(job).tables]
    assert names == [
        "clip", "waffle.draw.3", "waffle.draw.4", "wca.seed.0.draw.5", "wca.seed.1.draw.5",
        "wca.seed.0.draw.6", "wca.seed.1.draw.6", "dnd.seed.0", "dnd.seed.1",
    ]  # fmt: skip
    assert len({table.fingerprint for table in scored(job).tables}) == len(names)


def test_more_draws_keep_the_tables_of_those_that_were_there(small_job):
    job = small_job(methods=[{"name": "waffle", "seeds": [0, 1]}])
    describe(job)
    before = [table.fingerprint for table in scored(job).tables]
    job = small_job(methods=[{"name": "waffle", "seeds": [0, 1, 2]}])
    assert [table.fingerprint for table in scored(job).tables][:2] == before


def test_restricting_the_classes_starts_new_tables_of_predictions_and_no_others(small_job):
    job = small_job(methods=["clip"])
    describe(job)
    whole, part = (make_plan(load_job(job, [f"score.classes={value}"])) for value in ("all", "labelled"))
    for stage in ("encode_images", "encode_text"):
        assert [t.fingerprint for t in whole.of(stage).tables] == [t.fingerprint for t in part.of(stage).tables]
    assert whole.of("score").tables[0].fingerprint != part.of("score").tables[0].fingerprint


@pytest.mark.parametrize("change", [{"label": "b"}, {"seed": 5}])
def test_a_new_label_or_seed_keeps_predictions_and_makes_the_row_that_says_them_anew(small_job, change):
    seed = change.pop("seed", 0)
    first = small_job(methods=[{"name": "clip", "label": "a"}])
    describe(first)
    before = make_plan(load_job(first))
    after = make_plan(load_job(small_job(methods=[{"name": "clip", "label": "a"} | change], seed=seed)))
    same = {
        stage: before.of(stage).tables[0].fingerprint == after.of(stage).tables[0].fingerprint
        for stage in ("score", "evaluate")
    }
    assert same == {"score": True, "evaluate": False}
