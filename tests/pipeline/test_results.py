"""Results: means over seeds, and the same numbers as a table, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import statistics

import pyarrow as pa
import pytest

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.results import collect_results, distinct_names, to_csv, to_latex
from stages.evaluate import SCHEMA
from stages.stage import Run


def evaluated(table, accuracy: float, seed: int) -> None:
    """The row that evaluate would have made."""
    seconds = {f"{name}seconds_per_image": 0.5 for name in ("", "encode_", "score_")}
    shares = dict.fromkeys(("accuracy", "low", "high", "top_5", "mean_per_class"), accuracy)
    named = {"key": "all", "method": "old name", "split": "query", "seed": seed, "images": 6, "classes": 3}
    table.keeper.create({"stage": table.stage, "name": table.name, **table.ingredients.as_dict()})
    named["by_class"] = [{"class": "wren", "images": 2, "accuracy": accuracy}]
    named["confusions"] = [{"label": "wren", "predicted": "jay", "images": seed}]
    row = named | shares | seconds | {"confidence": 0.9}
    table.keeper.append(pa.Table.from_pylist([row], schema=SCHEMA), "run")


@pytest.fixture
def job(small_job):
    """A job of two seeds, one method that reads crops and one that does not, described."""
    loaded = load_job(small_job(seed=[3, 4], methods=[{"name": "dnd", "label": "d_n&d"}, "clip"]))
    plan = make_plan(loaded)
    plan.of("describe").stage.compute(
        plan.of("describe").tables, plan.inputs, Run("run", lambda done, rejected: None, lambda: None)
    )
    return loaded


def test_seeds_are_averaged_with_their_standard_deviation_and_other_methods_have_none(job):
    by_name = {table.name: table for table in make_plan(job).of("evaluate").tables}
    assert set(by_name) == {"methods.d_n&d.seed.3", "methods.d_n&d.seed.4", "methods.clip"}
    for name, accuracy, seed in (
        ("methods.d_n&d.seed.3", 0.5, 3),
        ("methods.d_n&d.seed.4", 0.9, 4),
        ("methods.clip", 0.25, 3),
    ):
        evaluated(by_name[name], accuracy, seed)
    dnd, clip = collect_results(make_plan(job), "birds")
    assert (dnd["method"], dnd["job"], dnd["seeds"], dnd["accuracy"]) == ("d_n&d", "birds", [3, 4], pytest.approx(0.7))
    assert dnd["sd"] == pytest.approx(statistics.stdev([0.5, 0.9]))
    assert (clip["accuracy"], clip["sd"], clip["seeds"]) == (0.25, None, [3])
    assert dnd["by_class"] == [{"class": "wren", "images": 2, "accuracy": pytest.approx(0.7)}]
    assert dnd["confusions"] == [{"label": "wren", "predicted": "jay", "images": 3}]  # of the first seed
    assert dnd["confidence"] == clip["confidence"] == 0.9


def test_a_method_that_is_not_evaluated_yet_is_left_out(job):
    assert collect_results(make_plan(job), "birds") == []
    clip = next(table for table in make_plan(job).of("evaluate").tables if table.name == "methods.clip")
    evaluated(clip, 0.25, 3)
    assert [row["method"] for row in collect_results(make_plan(job), "birds")] == ["clip"]


def row(method: str, job: str, accuracy: float, sd: float | None = None) -> dict:
    return {"method": method, "job": job, "accuracy": accuracy, "sd": sd, "seeds": [0] if sd is None else [0, 1]}


def test_latex_has_methods_down_jobs_across_percents_and_escaped_names():
    text = to_latex([row("a_b", "x&y", 0.5), row("c", "x&y", 0.25, 0.01), row("a_b", "z", 1.0)])
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert r"method & x\&y & z \\" in lines
    assert r"a\_b & 50.0 & 100.0 \\" in lines
    assert r"c & 25.0 $\pm$ 1.0 & -- \\" in lines


def test_csv_round_trips_numbers_and_names_with_commas():
    rows = [row('odd, "name"', "x", 1 / 3), row("b", "x", 0.5, 0.1)]
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [(found["method"], float(found["accuracy"]), found["sd"], found["seeds"]) for found in read] == [
        ('odd, "name"', 1 / 3, "", "0"),
        ("b", 0.5, "0.1", "0 1"),
    ]


def test_csv_leaves_out_what_is_a_list_of_classes():
    rows = [row("abs", "x", 0.5) | {"by_class": [{"class": "wren"}], "confusions": [], "images": 3}]
    assert to_csv(rows).splitlines() == ["method,job,accuracy,sd,seeds,images", "abs,x,0.5,,0,3"]


def test_jobs_of_one_name_are_refused_and_told_to_take_names():
    distinct_names(["birds", "job", "Birds"])
    with pytest.raises(ValueError, match=r"2 of the jobs are called 'job'.*`name:`"):
        distinct_names(["job", "birds", "job"])
