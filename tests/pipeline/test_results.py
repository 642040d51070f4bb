"""Results: means over seeds, and the same numbers as a table, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import statistics
from itertools import combinations

import pyarrow as pa
import pytest

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.results import collect_comparisons, collect_results, distinct_names, to_csv, to_latex
from stages import comparisons
from stages.evaluate import COMPARISONS, SCHEMA
from stages.stage import Run


def evaluated(table, accuracy: float, seed: int, draw: int | None = None) -> None:
    """The row that evaluate would have made."""
    row = dict.fromkeys(SCHEMA.names) | {"key": "all", "method": "old name", "split": "query", "seed": seed}
    shares = ("accuracy", "low", "high", "top_5", "mean_per_class", "mean_confidence", "calibration_error")
    row |= dict.fromkeys(shares, accuracy) | {"confidence": 0.9, "draw": draw}
    row |= {f"{name}seconds_per_image": 0.5 for name in ("", "encode_", "score_")}
    row |= {"images": 6, "classes": 3, "forward_passes": 4}
    row["by_class"] = [{"class": "wren", "images": 2, "accuracy": accuracy}]
    row["confusions"] = [{"label": "wren", "predicted": "jay", "images": seed}]
    keep(table, [row], SCHEMA)


def compared(table, methods: list[str], p_values: list[float]) -> None:
    """The rows that evaluate would have made of all pairs, in their order."""
    keys = comparisons.pair_keys(methods)
    rows = []
    for key, p in zip(keys, p_values, strict=True):
        first, second = (methods[int(place)] for place in key.split("-"))
        row = dict.fromkeys(comparisons.SCHEMA.names) | {"key": key, "method": first, "other": second, "p": p}
        rows.append(row | {"difference": 0.25, "images": 6})
    keep(table, rows, comparisons.SCHEMA)


def keep(table, rows: list[dict], schema: pa.Schema) -> None:
    table.keeper.create({"stage": table.stage, "name": table.name, **table.ingredients.as_dict()})
    table.keeper.append(pa.Table.from_pylist(rows, schema=schema), "run")


def tables_of(job) -> dict:
    return {table.name: table for table in make_plan(job).of("evaluate").tables}


@pytest.fixture
def described(small_job):
    """`described(**keys)` -> a job of six pictures whose descriptors are there, so that all its tables are known."""

    def load(**keys):
        loaded = load_job(small_job(**keys))
        plan = make_plan(loaded)
        run = Run("run", lambda done, rejected: None, lambda: None)
        plan.of("describe").stage.compute(plan.of("describe").tables, plan.inputs, run)
        return loaded

    return load


@pytest.fixture
def job(described):
    """A job of two seeds, one method that reads crops and one that does not."""
    return described(seed=[3, 4], methods=[{"name": "dnd", "label": "d_n&d"}, "clip"])


def test_seeds_are_averaged_with_their_standard_deviation_and_other_methods_have_none(job):
    by_name = tables_of(job)
    assert set(by_name) == {"methods.d_n&d.seed.3", "methods.d_n&d.seed.4", "methods.clip", COMPARISONS}
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
    assert dnd["draws"] == clip["draws"] == []
    assert (dnd["calibration_error"], dnd["merged_accuracy"], dnd["forward_passes"]) == (pytest.approx(0.7), None, 4)
    assert dnd["by_class"] == [{"class": "wren", "images": 2, "accuracy": pytest.approx(0.7)}]
    assert dnd["confusions"] == [{"label": "wren", "predicted": "jay", "images": 3}]  # of the first seed
    assert dnd["confidence"] == clip["confidence"] == 0.9


def test_results_say_which_provider_described_the_classes_to_a_method(described):
    job = described(
        descriptors={"marks": {"path": "marks.json"}, "names": {"provider": "names"}},
        methods=["clip", {"name": "cupl", "descriptors": "marks"}, {"name": "clip_d", "descriptors": "names"}],
    )
    for table in tables_of(job).values():
        if table.name != COMPARISONS:
            evaluated(table, 0.5, 0)
    rows = collect_results(make_plan(job), "birds")
    assert [(row["method"], row["described_by"]) for row in rows] == [
        ("clip", None),
        ("cupl", "file"),
        ("clip_d", "names"),
    ]


def test_a_method_that_is_not_evaluated_yet_is_left_out(job):
    assert collect_results(make_plan(job), "birds") == []
    assert collect_comparisons(make_plan(job), "birds") == []
    evaluated(tables_of(job)["methods.clip"], 0.25, 3)
    (clip,) = collect_results(make_plan(job), "birds")
    assert (clip["method"], clip["best"], clip["p_best"], clip["told_apart"]) == ("clip", True, None, None)


def test_a_method_of_which_some_draws_are_not_evaluated_is_left_out_and_not_averaged_over_the_others(job):
    evaluated(tables_of(job)["methods.d_n&d.seed.4"], 0.9, 4)
    evaluated(tables_of(job)["methods.clip"], 0.25, 3)
    assert [row["method"] for row in collect_results(make_plan(job), "birds")] == ["clip"]


def test_draws_of_a_methods_own_are_averaged_as_seeds_are(described):
    job = described(methods=[{"name": "waffle", "seeds": [5, 6]}])
    by_name = tables_of(job)
    assert set(by_name) == {"methods.waffle.draw.5", "methods.waffle.draw.6"}
    for accuracy, draw in ((0.5, 5), (0.7, 6)):
        evaluated(by_name[f"methods.waffle.draw.{draw}"], accuracy, 0, draw)
    (waffle,) = collect_results(make_plan(job), "birds")
    assert (waffle["accuracy"], waffle["sd"]) == (pytest.approx(0.6), pytest.approx(statistics.stdev([0.5, 0.7])))
    assert (waffle["seeds"], waffle["draws"]) == ([0], [5, 6])


@pytest.fixture
def compared_job(described):
    """Four methods of accuracies .5, .9, .8, .3; p values of the pairs 0-1, 0-2, 0-3, 1-2, 1-3, 2-3."""
    job = described(methods=["clip", "cupl", "crops_mean", "dnd"])
    for name, accuracy in (("clip", 0.5), ("cupl", 0.9), ("crops_mean", 0.8), ("dnd", 0.3)):
        evaluated(tables_of(job)[f"methods.{name}"], accuracy, 0)
    compared(tables_of(job)[COMPARISONS], ["clip", "cupl", "crops_mean", "dnd"], [0.02, 0.9, 0.9, 0.04, 0.001, 0.9])
    return job


def test_methods_are_held_against_the_best_one_with_holms_correction(compared_job):
    rows = {row["method"]: row for row in collect_results(make_plan(compared_job), "birds")}
    assert [name for name, row in rows.items() if row["best"]] == ["cupl"]
    # .001 x 3, .02 x 2, .04 x 1, none smaller than the one before it
    corrected = {name: row["p_best"] for name, row in rows.items()}
    assert corrected == {"cupl": None, "clip": pytest.approx(0.04), "crops_mean": 0.04, "dnd": pytest.approx(0.003)}
    assert {name: row["told_apart"] for name, row in rows.items()} == {
        "cupl": None,
        "clip": True,
        "crops_mean": True,
        "dnd": True,
    }


def test_a_method_that_differs_no_more_than_by_chance_is_not_told_apart(described):
    job = described(methods=["clip", "cupl", "dnd"])
    for name, accuracy in (("clip", 0.7), ("cupl", 0.9), ("dnd", 0.8)):
        evaluated(tables_of(job)[f"methods.{name}"], accuracy, 0)
    compared(tables_of(job)[COMPARISONS], ["clip", "cupl", "dnd"], [0.03, 0.001, 0.04])
    rows = {row["method"]: row for row in collect_results(make_plan(job), "birds")}
    # .03 alone would be below .05; of two comparisons the smaller counts twice
    assert (rows["clip"]["p_best"], rows["clip"]["told_apart"]) == (pytest.approx(0.06), False)
    assert (rows["dnd"]["p_best"], rows["dnd"]["told_apart"]) == (pytest.approx(0.06), False)


def test_of_equally_accurate_methods_the_first_is_the_best(described):
    job = described(methods=["clip", "cupl"])
    for name in ("clip", "cupl"):
        evaluated(tables_of(job)[f"methods.{name}"], 0.5, 0)
    compared(tables_of(job)[COMPARISONS], ["clip", "cupl"], [1.0])
    clip, cupl = collect_results(make_plan(job), "birds")
    assert (clip["best"], cupl["best"], cupl["told_apart"]) == (True, False, False)


def test_comparisons_are_rows_for_json_in_the_order_of_the_job(compared_job):
    rows = collect_comparisons(make_plan(compared_job), "birds")
    pairs = [(row["job"], row["method"], row["other"]) for row in rows]
    assert pairs[:4] == [
        ("birds", "clip", "cupl"),
        ("birds", "clip", "crops_mean"),
        ("birds", "clip", "dnd"),
        ("birds", "cupl", "crops_mean"),
    ]
    assert list(rows[0]) == ["job", *comparisons.SCHEMA.names[1:]]


@pytest.fixture
def few_shot_job(described, tmp_path, write_photos):
    """One zero-shot method, and `tip` of 1 and 4 shots under two seeds, whose evaluation is all there."""
    write_photos(
        tmp_path / "photos", [f"{split}/{bird}/0.png" for split in ("test", "train") for bird in ("jay", "wren")]
    )
    job = described(
        dataset={"path": "photos", "splits": {"query": "test", "support": "train"}},
        descriptors=None,
        methods=["clip", {"name": "tip", "label": "t_p", "shots": [4, 1], "seeds": [1, 2]}],
    )
    evaluated(tables_of(job)["methods.clip"], 0.2, 0)
    for shots, seed, accuracy in ((1, 1, 0.25), (1, 2, 0.5), (4, 1, 0.75), (4, 2, 1.0)):
        evaluated(tables_of(job)[f"methods.t_p.shots.{shots}.draw.{seed}"], accuracy, 0, seed)
    return job


def test_a_few_shot_method_has_a_row_a_number_of_shots_with_the_mean_and_spread_of_its_seeds(few_shot_job):
    rows = collect_results(make_plan(few_shot_job), "birds")
    assert [(row["method"], row["name"], row["shots"], row["accuracy"], row["draws"]) for row in rows] == [
        ("clip", "clip", None, 0.2, []),
        ("t_p (1)", "t_p", 1, 0.375, [1, 2]),
        ("t_p (4)", "t_p", 4, 0.875, [1, 2]),
    ]
    assert rows[0]["sd"] is None
    assert rows[1]["sd"] == rows[2]["sd"] == pytest.approx(statistics.stdev([0.25, 0.5]))
    assert [row["best"] for row in rows] == [False, False, True]


def test_a_number_of_shots_of_which_a_seed_is_not_evaluated_is_left_out_and_the_others_stay(few_shot_job):
    tables_of(few_shot_job)["methods.t_p.shots.4.draw.2"].keeper.clear()
    rows = collect_results(make_plan(few_shot_job), "birds")
    assert [row["method"] for row in rows] == ["clip", "t_p (1)"]


def test_numbers_of_shots_are_compared_with_each_other_as_methods_are(few_shot_job):
    methods = ["clip", "t_p (1)", "t_p (4)"]
    compared(tables_of(few_shot_job)[COMPARISONS], methods, [0.5, 0.01, 0.2])
    rows = collect_comparisons(make_plan(few_shot_job), "birds")
    assert [(row["method"], row["other"]) for row in rows] == list(combinations(methods, 2))
    told = {row["method"]: row["told_apart"] for row in collect_results(make_plan(few_shot_job), "birds")}
    assert told == {"clip": True, "t_p (1)": False, "t_p (4)": None}


def test_csv_latex_and_json_of_few_shot_methods_say_the_name_and_the_shots(few_shot_job, fieldmark, tmp_path):
    said = fieldmark("results", tmp_path / "job.yaml", "--json")
    rows = json.loads(said.out)["methods"]
    assert [(row["method"], row["name"], row["shots"]) for row in rows] == [
        ("clip", "clip", None),
        ("t_p (1)", "t_p", 1),
        ("t_p (4)", "t_p", 4),
    ]
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [(found["method"], found["name"], found["shots"], found["draws"]) for found in read] == [
        ("clip", "clip", "", ""),
        ("t_p (1)", "t_p", "1", "1 2"),
        ("t_p (4)", "t_p", "4", "1 2"),
    ]
    lines = to_latex(rows).splitlines()
    assert "clip & 20.0 \\\\" in lines
    assert "t\\_p (1) & 37.5 $\\pm$ 17.7 \\\\" in lines
    assert "t\\_p (4) & \\textbf{87.5} $\\pm$ 17.7 \\\\" in lines
    table = fieldmark("results", tmp_path / "job.yaml").out.splitlines()
    assert [line.split() for line in table if line.split()[:1] in (["1"], ["4"])] == [
        ["1", "37.5", "±", "17.7"],
        ["4", "87.5", "±", "17.7"],
    ]


def row(method: str, job: str, accuracy: float, sd: float | None = None, **more) -> dict:
    told = {"best": False, "told_apart": True, "images": 1200, "classes": 32} | more
    seeds = {"seeds": [0] if sd is None else [0, 1], "draws": []}
    return {"method": method, "job": job, "accuracy": accuracy, "sd": sd, **seeds, **told}


def test_latex_has_methods_down_jobs_across_percents_and_escaped_names():
    text = to_latex([row("a_b", "x&y", 0.5), row("c", "x&y", 0.25, 0.01), row("a_b", r"z\<1~", 1.0)])
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert lines[2] == r"method & x\&y & z\textbackslash{}\textless{}1\textasciitilde{} \\"
    assert r"a\_b & 50.0 & 100.0 \\" in lines
    assert r"c & 25.0 $\pm$ 1.0 & -- \\" in lines
    assert lines[-1] == r"\end{tabular}"


def test_latex_has_the_best_bold_a_dagger_where_not_told_apart_and_a_note_for_the_caption():
    best, close = {"best": True, "told_apart": None}, {"told_apart": False}
    rows = [
        row("abs", "x", 0.5, 0.01, **best),
        row("wca", "x", 0.49, **close),
        row("clip", "x", 0.1),
        row("abs", "y", 0.5, **best, images=90),
    ]
    lines = to_latex(rows).splitlines()
    assert r"abs & \textbf{50.0} $\pm$ 1.0 & \textbf{50.0} \\" in lines
    assert r"wca & 49.0$^{\dagger}$ & -- \\" in lines
    assert r"clip & 10.0 & -- \\" in lines
    note = [line for line in lines if line.startswith("%")]
    assert note == [
        r"% needs \usepackage{booktabs}",
        "% Top-1 accuracy in percent, the best of each column in bold.",
        r"% $^{\dagger}$: not told apart from the best on the same images "
        r"(McNemar's test, $p \geq 0.05$ with Holm's correction).",
        r"% Mean $\pm$ standard deviation over draws of crops and of the method's own.",
        "% x: 1,200 images, 32 classes.",
        "% y: 90 images, 32 classes.",
    ]
    plain = to_latex([row("clip", "x", 0.1, **best), row("wca", "y", 0.1, **best)])
    assert "dagger" not in plain
    assert "pm" not in plain
    assert "% x, y: 1,200 images, 32 classes." in plain


def test_csv_round_trips_numbers_and_names_with_commas():
    rows = [row('odd, "name"', "x", 1 / 3), row("b", "x", 0.5, 0.1)]
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [(found["method"], float(found["accuracy"]), found["sd"], found["seeds"]) for found in read] == [
        ('odd, "name"', 1 / 3, "", "0"),
        ("b", 0.5, "0.1", "0 1"),
    ]


def test_csv_has_one_value_a_cell_and_leaves_out_what_is_a_list_of_classes():
    rows = [row("abs", "x", 0.5) | {"draws": [5, 6], "by_class": [{"class": "wren"}], "confusions": []}]
    assert to_csv(rows).splitlines() == [
        "method,job,accuracy,sd,seeds,draws,best,told_apart,images,classes",
        "abs,x,0.5,,0,5 6,False,True,1200,32",
    ]


def test_jobs_of_one_name_are_refused_and_told_to_take_names():
    distinct_names(["birds", "job", "Birds"])
    with pytest.raises(ValueError, match=r"2 of the jobs are called 'job'.*`name:`"):
        distinct_names(["job", "birds", "job"])


def test_comparisons_of_a_job_that_has_run_agree_with_its_accuracies(finished_job):
    plan = make_plan(load_job(finished_job))
    accuracy = {row["method"]: row["accuracy"] for row in collect_results(plan, "birds")}
    rows = collect_comparisons(plan, "birds")
    assert [(row["method"], row["other"]) for row in rows] == list(combinations(accuracy, 2))
    for row in rows:
        assert row["difference"] == pytest.approx(accuracy[row["method"]] - accuracy[row["other"]])
        assert row["images"] == 12
