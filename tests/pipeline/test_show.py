"""Tables for people: names are shown as they are, whatever signs they hold, and long lists are cut."""

from __future__ import annotations

import io
import os
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.show import show_hits, show_predictions, show_rejects, show_results, show_status, status_rows
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


def test_results_stand_side_by_side_with_gaps_where_a_job_lacks_a_method(printed):
    row = {
        "accuracy": 0.715, "low": 0.7, "high": 0.73, "sd": None, "mean_per_class": 0.7,
        "seconds_per_image": 0.0123, "seeds": [0], "images": 1200, "classes": 32, "confidence": 0.95,
    }  # fmt: skip
    text = printed(
        show_results,
        [
            row | {"method": ODD, "job": "a"},
            row | {"method": "abs", "job": "a", "sd": 0.01, "seeds": [0, 1]},
            row | {"method": "abs", "job": "b", "confidence": 0.999},
        ],
    )
    assert "95 % interval" in text
    assert "99.9 % interval" in text
    assert ODD in text
    assert "71.5 ± 1.0" in text
    assert "70.0 - 73.0" in text
    assert "12.3" in text
    assert "a: 1,200 images, 32 classes, chance 3.1 %" in text


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


def status_of(job, name: str) -> dict:
    return next(row for row in status_rows(make_plan(job)) if row["table"] == name)


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


def test_status_says_how_long_a_stage_took_when_it_last_computed_something(small_job):
    job = load_job(small_job())
    stage = {"stage": "encode_images", "computed": 6, "seconds": 71.5}
    write_record(job.store, "1", {"stages": [stage | {"seconds": 9.0}]})
    write_record(job.store, "2", {"stages": [stage, {"stage": "describe", "computed": 3, "seconds": 0.25}]})
    write_record(job.store, "3", {"stages": [stage | {"computed": 0, "seconds": 0.0}]})
    write_record(job.store, "4", {"stages": []})
    took = {(row["stage"], row["table"]): row["seconds"] for row in status_rows(make_plan(job))}
    assert took["encode_images", "whole"] == took["encode_images", "views.random"] == 71.5
    assert took["describe", "descriptors.marks"] == 0.25
    assert took["encode_text", None] is None


def test_the_table_of_status_is_readable_at_120_columns(finished_job):
    job = load_job(finished_job, ["views.guided.max_side=0.8"])
    rows = status_rows(make_plan(job))
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
