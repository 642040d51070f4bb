"""Predictions: stored ones, those of new files, and files of them that any program reads."""

from __future__ import annotations

import json

import polars as pl
import pytest

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import NotComputed, new_predictions, stored_predictions, write_predictions

METHODS = ["clip", "cupl", "crops_mean", "dnd", "abs"]
ROWS = [
    {
        "image": f"wren/it's {number}.png",
        "method": "abs",
        "seed": 0,
        "draw": None,
        "class": "wren, small",
        "probability": 0.75,
        "margin": 1.5,
        "top": [{"class": "wren, small", "probability": 0.75}, {"class": "jay", "probability": 0.125}],
    }
    for number in range(3)
]


def test_csv_parquet_and_json_hold_the_same_predictions(tmp_path):
    for suffix in ("csv", "parquet", "json"):
        write_predictions(ROWS, tmp_path / f"out.{suffix}")
    read = pl.read_parquet(tmp_path / "out.parquet")
    assert read["top_classes"].to_list() == [["wren, small", "jay"]] * 3
    assert read["top_probabilities"].to_list() == [[0.75, 0.125]] * 3
    from_csv = pl.read_csv(tmp_path / "out.csv")
    assert from_csv["top_classes"].to_list() == ["wren, small|jay"] * 3
    assert from_csv["top_probabilities"].to_list() == ["0.75|0.125"] * 3
    plain = ["image", "method", "seed", "draw", "class", "probability", "margin"]
    assert from_csv.select(plain).to_dicts() == read.select(plain).to_dicts()
    assert read.select(plain).to_dicts() == [{name: row[name] for name in plain} for row in ROWS]
    assert json.loads((tmp_path / "out.json").read_text())["predictions"] == ROWS


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"out\.txt: .*\.csv, \.parquet or \.json"):
        write_predictions(ROWS, tmp_path / "out.txt")


def test_stored_predictions_have_a_row_an_image_and_method_with_probabilities_that_sum_to_one(finished_job):
    rows = stored_predictions(make_plan(load_job(finished_job)), [], top_k=50)
    assert len(rows) == 12 * 5
    assert {row["method"] for row in rows} == set(METHODS)
    assert len({row["image"] for row in rows}) == 12
    for row in rows:
        shares = [best["probability"] for best in row["top"]]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares == sorted(shares, reverse=True)
        assert (row["class"], row["probability"]) == (row["top"][0]["class"], shares[0])
        assert row["margin"] >= 0


def test_methods_and_the_number_of_classes_shown_can_be_chosen(finished_job):
    rows = stored_predictions(make_plan(load_job(finished_job)), ["abs"], top_k=2)
    assert ({row["method"] for row in rows}, {len(row["top"]) for row in rows}) == ({"abs"}, {2})


def test_a_new_file_gets_what_the_same_picture_got_in_the_job_where_no_crop_is_drawn(finished_job):
    job = load_job(finished_job)
    plan = make_plan(job)
    stored = {(row["image"], row["method"]): row for row in stored_predictions(plan, ["clip", "cupl"], 3)}
    image = finished_job.parent / "photos/test/red robin/3.png"
    new, unreadable = new_predictions(job, plan, [image], ["clip", "cupl"], 3)
    assert unreadable == []
    for row in new:
        former = stored["test/red robin/3.png", row["method"]]
        assert row["class"] == former["class"]
        assert row["probability"] == pytest.approx(former["probability"], abs=0.02)


def test_files_that_cannot_be_read_are_told_and_the_others_predicted(finished_job, tmp_path):
    job = load_job(finished_job)
    image = finished_job.parent / "photos/test/wren/0.png"
    (tmp_path / "empty.jpg").write_bytes(b"")
    files = [tmp_path / "none.png", image, tmp_path / "empty.jpg", tmp_path]
    rows, unreadable = new_predictions(job, make_plan(job), files, ["clip"], 1)
    assert [row["image"] for row in rows] == [str(image)]
    assert [(path.name, reason.split(":")[0]) for path, reason in unreadable] == [
        ("none.png", "cannot be read"),
        ("empty.jpg", "the file is empty"),
        (tmp_path.name, "cannot be read"),
    ]


def test_predictions_that_are_not_there_yet_say_which(small_job):
    job = load_job(small_job())
    with pytest.raises(NotComputed, match="known after"):
        stored_predictions(make_plan(job), [], 5)
