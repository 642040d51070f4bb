"""Tables for people: names are shown as they are, whatever signs they hold, and long lists are cut."""

from __future__ import annotations

import io
import json
import os
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.forecast import Forecast
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.show import (
    show_forecast,
    show_hits,
    show_predictions,
    show_rejects,
    show_results,
    show_status,
    status_rows,
)
from pipeline.why import Why
from storage.records import write_record

ODD = "[red]owl[/red] 'x' #1"


@pytest.fixture
def printed():
    """`printed(show, *arguments)` -> what stands on a terminal 160 columns wide."""

    def call(show, *arguments) -> str:
        console = Console(file=io.StringIO(), width=160)
        show(console, *arguments)
        return console.file.getvalue()

    return call


def test_rejects_are_counted_and_the_first_five_named(printed):
    rows = [{"uri": f"{ODD}{number}.png", "reason": "the file is empty"} for number in range(7)]
    text = printed(show_rejects, rows)
    assert "7 images rejected" in text
    assert f"{ODD}0.png: the file is empty" in text
    assert "and 2 more" in text
    assert printed(show_rejects, []) == ""
    assert "1 image rejected" in printed(show_rejects, rows[:1])


def result(method: str, job: str, accuracy: float = 0.715, **more) -> dict:
    row = {
        "low": accuracy - 0.015, "high": accuracy + 0.015, "sd": None, "mean_per_class": 0.7, "merged_accuracy": None,
        "calibration_error": 0.123, "seconds_per_image": 0.0123, "seeds": [0], "draws": [], "images": 1200,
        "classes": 32, "confidence": 0.95, "best": False, "told_apart": True,
    }  # fmt: skip
    named = {"method": method, "job": job, "name": method, "shots": None, "described_by": None}
    return named | {"accuracy": accuracy} | row | more


def test_results_stand_side_by_side_with_gaps_where_a_job_lacks_a_method(printed):
    rows = [
        result(ODD, "a"),
        result("abs", "a", sd=0.021, seeds=[0, 1]),
        result("abs", "b", 0.5, confidence=0.999),
    ]
    lines = printed(show_results, rows).splitlines()
    heading = " ".join(lines[:3])
    assert "95 %" in heading
    assert "99.9 %" in heading
    (odd,) = [line for line in lines if ODD in line]
    assert odd.split("#1")[1].split() == ["71.5", "70.0", "-", "73.0", "70.0", "12.3", "12.3"]
    (both,) = [line for line in lines if line.startswith("abs")]
    assert both.split()[1:3] == ["71.5", "2.1"]
    assert both.split()[9:] == ["50.0", "48.5", "-", "51.5", "70.0", "12.3", "12.3"]
    assert "a: 1,200 images, 32 classes, chance 3.1 %; mean and sd over crop seeds 0, 1" in lines
    assert "b: 1,200 images, 32 classes, chance 3.1 %" in lines


def test_methods_that_are_not_told_from_the_best_are_marked_and_the_mark_is_explained(printed):
    best = result("abs", "a", best=True, told_apart=None)
    text = printed(show_results, [best, result("wca", "a", told_apart=False), result("clip", "a")])
    assert [line.split()[1] for line in text.splitlines() if line[:4].strip() in ("abs", "wca", "clip")] == [
        "71.5",
        "*",
        "71.5",
    ]
    assert "\n* not told apart from the best" in text
    assert "*" not in printed(show_results, [best, result("clip", "a")])


def test_a_job_that_knows_class_names_alone_is_told_what_descriptors_would_add(printed):
    rows = [result("clip", "a"), result("dnd", "a", described_by="names"), result("abs", "a", described_by="names")]
    said = "dnd, abs know class names alone; words for what classes look like would add to that"
    text = " ".join(printed(show_results, rows).split())
    assert f"{said}: a descriptor set with `provider: openai` (a language model) or `provider: file`" in text
    described = [result("dnd", "b", described_by="file"), result("abs", "b", described_by="names")]
    assert "know class names" not in printed(show_results, described)
    assert f"a: {said}" in " ".join(printed(show_results, rows + described).split())


def few_shot(name: str, shots: int, accuracy: float, job: str = "a", **more) -> dict:
    draws = {"sd": 0.0123, "draws": [1, 2, 3]} | more
    return result(f"{name} ({shots})", job, accuracy, name=name, shots=shots, **draws)


def test_shots_stand_down_the_side_and_few_shot_methods_across_with_mean_and_spread(printed):
    rows = [result("clip", "a", 0.5), few_shot(ODD, 2, 0.25), few_shot(ODD, 16, 0.75, best=True)]
    rows += [few_shot("dnd_tip", 4, 0.6, told_apart=False, sd=None, draws=[1]), few_shot("dnd_tip", 2, 0.3)]
    lines = printed(show_results, rows).splitlines()
    grid = next(number for number, line in enumerate(lines) if line.split()[:1] == ["shots"])
    assert lines[grid + 1].split()[:2] == ["a", "class"]
    assert ODD in lines[grid] + lines[grid + 1]
    assert [line.split() for line in lines[grid + 2 : grid + 5]] == [
        ["2", "25.0", "±", "1.2", "30.0", "±", "1.2"],
        ["4", "*", "60.0"],
        ["16", "75.0", "±", "1.2"],
    ]
    assert any(line.split()[:2] == ["clip", "50.0"] for line in lines[:grid]), "methods without shots stand above"
    assert not any("dnd_tip" in line for line in lines[:grid])
    assert any(line.startswith("* not told apart from the best") for line in lines[grid:])
    assert lines[-1].endswith(f"mean and sd over the method's own draws: {ODD} 3, dnd_tip 3")


def test_a_number_in_the_grid_stands_under_its_method_and_a_gap_is_left_where_it_has_none(printed):
    lines = printed(show_results, [few_shot("tip", 1, 0.25), few_shot("dnd_tip", 2, 0.75)]).splitlines()
    (header,) = [line for line in lines if "dnd_tip" in line and not line.startswith("a:")]
    (first,) = [line for line in lines if line.strip().startswith("1 ")]
    (second,) = [line for line in lines if line.strip().startswith("2 ")]
    ends = {name: header.index(name) + len(name) for name in (" tip", "dnd_tip")}
    assert (len(first.rstrip()), len(second.rstrip())) == (ends[" tip"], ends["dnd_tip"])


def test_few_shot_results_of_several_jobs_are_a_grid_each_under_its_name(printed):
    rows = [few_shot("tip", shots, 0.1 * shots, job) for job in ("first", "second") for shots in (1, 2)]
    lines = [line.strip() for line in printed(show_results, rows).splitlines()]
    assert "first" in lines[: lines.index("second")]
    assert [line for line in lines if line.startswith(("1 ", "2 "))] == ["1  10.0 ± 1.2", "2  20.0 ± 1.2"] * 2


def test_merged_accuracy_is_shown_where_classes_share_a_name(printed):
    assert "merged" not in printed(show_results, [result("abs", "a")])
    text = printed(show_results, [result("abs", "a", merged_accuracy=0.76)])
    assert "merged %" in text
    assert " 76.0 " in text


def test_draws_of_a_methods_own_are_told_of_and_jobs_that_agree_share_a_line(printed):
    rows = [result("waffle", job, sd=0.01, draws=[0, 1, 2]) for job in ("a", "b")]
    said = "1,200 images, 32 classes, chance 3.1 %; mean and sd over the method's own draws: waffle 3"
    assert printed(show_results, rows).endswith(f"\nall: {said}\n")
    lines = printed(show_results, [*rows, result("clip", "c", images=90)]).splitlines()
    assert lines[-2:] == [f"a, b: {said}", "c: 90 images, 32 classes, chance 3.1 %"]


METHOD_NAMES = ["clip", "cupl", "crops_mean", "dnd", "abs"]
VARIANTS = [f"views.guided.crops={count}" for count in (2, 4, 8, 16, 32, 64)]


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize(
    ("jobs", "methods"),
    [
        (["a"], METHOD_NAMES),
        (["a", "b"], METHOD_NAMES),
        (["imagenet", "cub", "pets", "dtd", "food", "eurosat"], METHOD_NAMES),
        (VARIANTS, METHOD_NAMES[-2:]),
        (VARIANTS, [*METHOD_NAMES, *(f"{name}_of_a_long_label" for name in METHOD_NAMES)]),
    ],
    ids=["one job", "two jobs", "six jobs", "a sweep of two methods", "a sweep of ten methods"],
)
def test_results_fit_a_terminal_whole(jobs, methods, width):
    """Nothing is cut or folded, and every accuracy stands on the line of its method or of its job."""
    rows = [
        result(method, job, 0.01 * (10 * place + number), sd=0.012, told_apart=bool(number % 3))
        for place, job in enumerate(jobs)
        for number, method in enumerate(methods)
    ]
    console = Console(file=io.StringIO(), width=width)
    show_results(console, rows)
    text = console.file.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for row in rows:
        shown = f"{100 * row['accuracy']:.1f}"
        assert any(shown in line.split() and line.split()[0] in (row["method"], row["job"]) for line in lines), (
            f"{row['method']} of {row['job']}"
        )


def test_columns_that_do_not_fit_are_left_out_with_a_word():
    for width, whole in ((50, False), (80, True)):
        console = Console(file=io.StringIO(), width=width)
        show_results(console, [result("abs_of_some_length", "a"), result("clip", "a", told_apart=False)])
        text = console.file.getvalue()
        assert ("calibration" in text) is whole
        assert ("columns are left out to fit" in text) is not whole
        assert "70.0 - 73.0" in text
        assert "12.3" in text


def test_hits_and_predictions_show_names_as_they_are(printed):
    hit = {"similarity": 0.51234, "image": f"{ODD}.png", "class": ODD, "split": "query", "box": [1, 2, 3, 4]}
    assert f"{ODD}.png" in printed(show_hits, [hit])
    assert "0.512" in printed(show_hits, [hit])
    assert "no rows fit" in printed(show_hits, [])
    best = [{"class": ODD, "probability": 0.9}, {"class": "wren", "probability": 0.1}]
    row = {"image": ODD, "method": "abs", "class": ODD, "probability": 0.9, "top": best}
    text = printed(show_predictions, [row])
    assert text.count(ODD) == 2
    assert "wren 0.10" in text


def rows_of(job) -> list[dict]:
    return status_rows(make_plan(job), Why(job.store))


def status_of(job, name: str) -> dict:
    return next(row for row in rows_of(job) if row["table"] == name)


def test_status_says_where_a_table_lies_and_when_it_was_last_written(small_job):
    job = load_job(small_job())
    before = status_of(job, "views.random")
    assert (before["modified"], before["seconds"]) == (None, None)
    assert Path(before["location"]) == Path(job.store) / before["path"]
    table = next(table for table in make_plan(job).of("encode_images").tables if table.name == "views.random")
    table.keeper.create({"stage": table.stage, "name": table.name, **table.ingredients.as_dict()})
    shard = Path(table.keeper.folder) / table.keeper.append(pa.table({"key": table.wanted}), "run")
    os.utime(shard, (1_700_000_000, 1_700_000_000))
    assert status_of(job, "views.random")["modified"] == "2023-11-14T22:13:20+00:00"


def test_status_says_which_sets_no_method_reads_and_which_classes_of_a_file_no_image_has(small_job, tmp_path, printed):
    birds = ["blue jay", "red robin", "wren", "owl"]
    sets = {"marks": {"path": "more.json"}, "names": {"provider": "names"}}
    loaded = load_job(small_job(descriptors=sets, methods=[{"name": "cupl", "descriptors": "marks"}]))
    (tmp_path / "more.json").write_text(json.dumps({bird: ["small"] for bird in birds}))
    rows = status_rows(make_plan(loaded), Why(loaded.store))
    marks, names, *others = rows
    assert marks["notes"] == [f"{tmp_path / 'more.json'} also describes 1 class that the data set does not have: 'owl'"]
    assert (names["missing"], names["notes"]) == (0, ["no method reads it, so nothing is described for it"])
    assert not any(row["notes"] for row in others)
    text = " ".join(printed(show_status, rows, []).split())
    assert "'owl'" in text
    assert "no method reads it" in text


def test_status_says_how_long_a_stage_took_when_it_last_computed_something(small_job):
    job = load_job(small_job())
    stage = {"stage": "encode_images", "computed": 6, "seconds": 71.5}
    write_record(job.store, "1", {"stages": [stage | {"seconds": 9.0}]})
    write_record(job.store, "2", {"stages": [stage, {"stage": "describe", "computed": 3, "seconds": 0.25}]})
    write_record(job.store, "3", {"stages": [stage | {"computed": 0, "seconds": 0.0}]})
    write_record(job.store, "4", {"stages": []})
    took = {(row["stage"], row["table"]): row["seconds"] for row in rows_of(job)}
    assert took["encode_images", "whole"] == took["encode_images", "views.random"] == 71.5
    assert took["describe", "descriptors.marks"] == 0.25
    assert took["encode_text", None] is None


def test_the_table_of_status_is_readable_at_120_columns(finished_job):
    job = load_job(finished_job, ["views.guided.max_side=0.8"])
    rows = rows_of(job)
    written = datetime.fromisoformat(next(row["modified"] for row in rows if row["table"] == "whole"))
    console = Console(file=io.StringIO(), width=120)
    show_status(console, rows, [])
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 120
    assert lines[-1] == f"all of it in {job.store}/"
    (line,) = [line for line in lines if " views.random " in line]
    local = written.astimezone()
    assert f"{local.day} {local:%b %H:%M}" in line
    path = status_of(job, "views.random")["path"]
    assert path.startswith("tables/encode_images/")
    assert path.startswith(line.split()[-1])  # folded where it is too long
    assert "max_side" in next(line for line in lines if " views.guided " in line)
    (first,) = [line for line in lines if " whole " in line]
    assert " s " in first  # how long encode_images took, once
    assert " s " not in line


def test_status_counts_images_that_stay_in_a_table_unread(small_job, tmp_path, printed):
    job = load_job(small_job())
    table = next(table for table in make_plan(job).of("encode_images").tables if table.name == "whole")
    table.keeper.create({"stage": table.stage, "name": table.name, **table.ingredients.as_dict()})
    table.keeper.append(pa.table({"key": table.wanted}), "run")
    (tmp_path / "photos/wren/0.png").unlink()
    assert (status_of(job, "whole")["unread"], status_of(job, "views.random")["unread"]) == (1, 0)
    assert "kept, unread: 1 image not in the data set (any more)" in " ".join(
        printed(show_status, rows_of(job), []).split()
    )


def test_a_forecast_has_a_line_a_stage_and_a_sum_where_all_is_known(printed):
    encode = Forecast("encode_images", 3612, 73_444, 1_200_000_000, 7800.0, "by the run of 4 Mar 14:05")
    score = Forecast("score", 1204, None, None, 60.0, "by the run of 4 Mar 14:05")
    lines = printed(show_forecast, [encode, score]).splitlines()
    assert " ".join(lines[1].split()).startswith("encode_images 3,612 73,444 1.2 GB about 2 h 10 min by the run")
    assert " ".join(lines[2].split()).startswith("score 1,204 about 60 s by the run")
    assert lines[3] == "in all about 2 h 11 min"
    unknown = Forecast("project", None, None, None, None, "known after score")
    text = printed(show_forecast, [encode, unknown])
    assert "in all" not in text
    assert "not known" in text
    assert "nothing to do" in printed(show_forecast, [])
