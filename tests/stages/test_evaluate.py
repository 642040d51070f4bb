"""evaluate: accuracies by hand, and the bootstrap interval against resampling images one by one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.evaluate import SCHEMA, bootstrap_interval, evaluate_predictions
from stages.methods import parse_method
from stages.score import Reading
from stages.settings import EvaluateSettings, ScoreSettings
from stages.stage import Ingredients, Table
from storage.shards import ShardTable

CLASSES = list("abcdefg")


@pytest.fixture
def evaluated(tmp_path):
    """`evaluated({key: (label, best classes)})` -> the row; an image took 0.2 s, its crops 0.3 s, scoring 0.1 s."""

    def compute(predictions: dict[str, tuple[str, list[str]]], *, view: bool = True):
        def seconds(name: str, each: float, **columns) -> Table:
            keeper = ShardTable(str(tmp_path / name))
            count = len(predictions)
            keeper.append(pa.table({"key": list(predictions), **columns, "seconds": [each] * count}), "run")
            return Table(name, name, Ingredients({}, 1), list(predictions), keeper)

        whole, views = seconds("whole", 0.2), seconds("views", 0.3)
        scored = seconds("score", 0.1, classes=[best for _, best in predictions.values()])
        reading = Reading(
            method=parse_method("clip"),
            prompts={name: [name] for name in CLASSES},
            texts="",
            whole=whole.keeper.folder,
            view=views.keeper.folder if view else None,
            folder=scored.keeper.folder,
        )
        scored = Table("score", "methods.clip", scored.ingredients, list(predictions), scored.keeper, (reading, 7))
        encoded = {table.keeper.folder: table for table in (whole, views)}
        known = [(key, label) for key, (label, _) in predictions.items()]
        return evaluate_predictions(scored, known, encoded, EvaluateSettings(bootstrap=100, confidence=0.9))

    return compute


def test_accuracies_are_shares_of_images_of_the_first_five_and_the_mean_of_the_classes_own(evaluated):
    row = evaluated(
        {
            "1": ("a", ["a", "b", "c", "d", "e", "f"]),
            "2": ("a", ["a", "b", "c", "d", "e", "f"]),
            "3": ("a", ["a", "b", "c", "d", "e", "f"]),
            "4": ("a", ["b", "c", "d", "e", "a", "f"]),
            "5": ("b", ["c", "b", "a", "d", "e", "f"]),
            "6": ("b", ["c", "d", "e", "f", "g", "b"]),
        }
    )
    assert row["accuracy"] == pytest.approx(3 / 6)
    assert row["mean_per_class"] == pytest.approx((3 / 4 + 0 / 2) / 2)
    assert row["top_5"] == pytest.approx(5 / 6)
    assert (row["images"], row["classes"], row["seed"], row["method"]) == (6, 7, 7, "clip")
    assert row["low"] <= 0.5 <= row["high"]
    assert row["confidence"] == 0.9


def test_every_class_has_its_accuracy_and_confusions_come_most_frequent_first(evaluated):
    row = evaluated(
        {
            "1": ("b", ["c", "b"]),
            "2": ("a", ["a", "b"]),
            "3": ("a", ["c", "b"]),
            "4": ("b", ["c", "a"]),
            "5": ("a", ["b", "a"]),
            "6": ("a", ["a", "c"]),
        }
    )
    assert row["by_class"] == [
        {"class": "a", "images": 4, "accuracy": 0.5},
        {"class": "b", "images": 2, "accuracy": 0.0},
    ]
    assert row["confusions"] == [
        {"label": "b", "predicted": "c", "images": 2},
        {"label": "a", "predicted": "b", "images": 1},
        {"label": "a", "predicted": "c", "images": 1},
    ]
    assert pa.Table.from_pylist([row], schema=SCHEMA).to_pylist() == [row]


def test_of_many_confusions_the_twenty_most_frequent_are_kept_and_none_is_an_empty_list(evaluated):
    wrong = [(label, other) for label in CLASSES for other in CLASSES if label != other][:25]
    often = {f"{number:02}": (label, [other]) for number, (label, other) in enumerate([*wrong, wrong[-1]])}
    row = evaluated(often)
    assert len(row["confusions"]) == 20
    assert row["confusions"][0] == {"label": wrong[-1][0], "predicted": wrong[-1][1], "images": 2}


def test_score_keeps_at_least_the_five_classes_that_top_5_reads():
    assert ScoreSettings(top_k=5).top_k == 5
    with pytest.raises(ValidationError, match="greater than or equal to 5"):
        ScoreSettings(top_k=4)


def test_labels_meet_their_own_image_whatever_the_order_of_the_shards(evaluated):
    keys = [f"{number:02}" for number in range(20)][::-1]
    row = evaluated({key: (CLASSES[int(key) % 7], [CLASSES[int(key) % 7], "x"]) for key in keys})
    assert (row["accuracy"], row["mean_per_class"], row["low"], row["high"]) == (1.0, 1.0, 1.0, 1.0)
    assert row["confusions"] == []
    assert list(row) == SCHEMA.names


def test_seconds_an_image_are_those_of_all_that_a_method_reads(evaluated):
    row = evaluated({"1": ("a", ["a"]), "2": ("b", ["b"])})
    assert row["encode_seconds_per_image"] == pytest.approx(0.5)
    assert row["score_seconds_per_image"] == pytest.approx(0.1)
    assert row["seconds_per_image"] == pytest.approx(0.6)


def test_a_method_without_views_does_not_pay_for_crops(evaluated):
    assert evaluated({"1": ("a", ["a"])}, view=False)["seconds_per_image"] == pytest.approx(0.3)


@pytest.mark.parametrize(("images", "right", "confidence"), [(40, 28, 0.95), (40, 39, 0.9), (7, 3, 0.5)])
def test_the_interval_is_that_of_drawing_images_with_replacement(images, right, confidence):
    hits = np.arange(images) < right
    rng = np.random.default_rng(1)
    means = [hits[rng.integers(0, images, images)].mean() for _ in range(8000)]
    expected = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    assert bootstrap_interval(hits, 8000, confidence) == pytest.approx(expected, abs=1.01 / images)


@given(hits=st.lists(st.booleans(), min_size=1, max_size=30))
def test_the_interval_lies_in_0_to_1_is_repeatable_and_empty_when_all_agree(hits):
    low, high = bootstrap_interval(np.array(hits), 500, 0.95)
    assert 0 <= low <= high <= 1
    assert (low, high) == bootstrap_interval(np.array(hits), 500, 0.95)
    if all(hits) or not any(hits):
        assert low == high == float(hits[0])


def test_more_confidence_is_a_wider_interval():
    hits = np.arange(100) < 70
    narrow, wide = bootstrap_interval(hits, 2000, 0.5), bootstrap_interval(hits, 2000, 0.99)
    assert wide[0] < narrow[0] < 0.7 < narrow[1] < wide[1]
