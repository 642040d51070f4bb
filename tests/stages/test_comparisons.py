"""Comparisons of methods: counts and differences by hand, with and without draws."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from stages.comparisons import SCHEMA, Right, compare_methods, count_right
from stages.settings import EvaluateSettings
from stages.stage import Ingredients, Table
from stages.statistics import mcnemar_p
from storage.shards import ShardTable

SETTINGS = EvaluateSettings(bootstrap=500, confidence=0.9)


def right(*counts: int, draws: int = 1) -> Right:
    return Right(np.array(counts), draws)


def test_a_pair_has_its_difference_the_images_that_one_alone_gets_right_and_mcnemars_p():
    (row,) = compare_methods({"abs": right(1, 1, 1, 1, 0, 0), "clip": right(1, 0, 0, 0, 1, 0)}, SETTINGS)
    assert (row["method"], row["other"], row["n10"], row["n01"], row["images"]) == ("abs", "clip", 3, 1, 6)
    assert row["difference"] == pytest.approx((3 - 1) / 6)
    assert row["p"] == pytest.approx(2 * (1 + 4) / 2**4)
    assert -1 <= row["low"] <= row["difference"] <= row["high"] <= 1
    assert row["confidence"] == 0.9
    assert pa.Table.from_pylist([row], schema=SCHEMA).to_pylist() == [row]


def test_all_pairs_come_in_the_order_of_the_job():
    rows = compare_methods({name: right(1, 0) for name in ("b", "c", "a")}, SETTINGS)
    assert [(row["method"], row["other"], row["key"]) for row in rows] == [
        ("b", "c", "0-1"),
        ("b", "a", "0-2"),
        ("c", "a", "1-2"),
    ]


def test_a_method_of_several_draws_counts_by_the_share_of_them_that_are_right():
    # shares 1, 1/2, 1/2, 0 against 1/3, 0, 1, 0
    (row,) = compare_methods({"wca": right(2, 1, 1, 0, draws=2), "waffle": right(1, 0, 3, 0, draws=3)}, SETTINGS)
    assert row["difference"] == pytest.approx((2 / 3 + 1 / 2 - 1 / 2) / 4)
    assert (row["n10"], row["n01"]) == (2, 1)


def test_more_draws_of_the_same_predictions_are_no_more_evidence():
    """Draws of one image are not new images: three equal ones change nothing."""
    one = {"a": right(1, 1, 1, 1, 1, 1, 0), "b": right(0, 0, 0, 0, 0, 0, 1)}
    three = {"a": right(3, 3, 3, 3, 3, 3, 0, draws=3), "b": one["b"]}
    assert compare_methods(three, SETTINGS) == [pytest.approx(row) for row in compare_methods(one, SETTINGS)]
    assert compare_methods(one, SETTINGS)[0]["p"] == mcnemar_p(6, 1)


def test_the_mean_over_images_is_that_of_comparing_seed_with_seed():
    hits = np.random.default_rng(0).integers(0, 2, (2, 3, 50))  # method, seed, image
    (row,) = compare_methods({name: Right(of.sum(0), 3) for name, of in zip("ab", hits, strict=True)}, SETTINGS)
    seed_by_seed = [(one - two).mean() for one, two in zip(*hits, strict=True)]
    assert row["difference"] == pytest.approx(np.mean(seed_by_seed))


def test_right_predictions_are_counted_over_the_tables_of_a_methods_draws(tmp_path):
    def scored(name: str, **best: str) -> Table:
        keeper = ShardTable(str(tmp_path / name))
        keeper.append(pa.table({"key": list(best), "classes": [[one, "other"] for one in best.values()]}), "run")
        return Table("score", name, Ingredients({}, 1), list(best), keeper)

    draws = [scored("0", k1="wren", k2="jay", k3="owl"), scored("1", k1="wren", k2="wren", k3="jay")]
    found = count_right(draws, pa.table({"key": ["k3", "k1", "k2"], "class": ["owl", "wren", "owl"]}))
    assert (found.counts.tolist(), found.draws) == ([1, 2, 0], 2)
