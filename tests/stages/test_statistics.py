"""Statistics: figures by hand, scipy's test, and brute force in place of the shortcuts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from stages.statistics import (
    SIGN_FLIPS,
    bootstrap_interval,
    calibration_error,
    holm,
    mcnemar_p,
    paired_interval,
    paired_p,
)


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


@pytest.mark.parametrize("values", [(30, 9, 161), (12, 12, 26), (3, 0, 47)])
def test_the_interval_of_a_difference_is_that_of_drawing_pairs_of_predictions(values):
    """`values` are n10, n01 and the images on which both methods agree."""
    n10, n01, agree = values
    differences = np.repeat([1, -1, 0], [n10, n01, agree])
    images, resamples = len(differences), 20_000
    rng = np.random.default_rng(1)
    means = [differences[rng.integers(0, images, images)].mean() for _ in range(resamples)]
    expected = np.quantile(means, [0.025, 0.975])
    # Means lie 1 / images apart; a quantile's own standard error is sqrt(q (1 - q) / resamples) / density, near 2.7 sd
    # / sqrt(resamples) at 2.5 % of a normal distribution. Both sides are draws; five standard errors.
    spread = 5 * np.sqrt(2) * 2.7 * differences.std() / np.sqrt(images) / np.sqrt(resamples)
    assert paired_interval(differences, resamples, 0.95) == pytest.approx(expected, abs=1 / images + spread)


def test_the_interval_of_differences_of_several_sizes_is_that_of_drawing_images():
    differences = np.random.default_rng(2).integers(-3, 5, 120)
    rng = np.random.default_rng(1)
    means = [differences[rng.integers(0, 120, 120)].mean() for _ in range(20_000)]
    spread = 5 * np.sqrt(2) * 2.7 * differences.std() / np.sqrt(120) / np.sqrt(20_000)
    expected = np.quantile(means, [0.025, 0.975])
    assert paired_interval(differences, 20_000, 0.95) == pytest.approx(expected, abs=1 / 120 + spread)


def test_two_methods_that_agree_everywhere_differ_by_nothing_for_certain():
    assert paired_interval(np.zeros(9, int), 500, 0.95) == (0.0, 0.0)
    assert paired_p(np.zeros(9, int)) == 1.0


def test_mcnemar_is_two_binomial_tails():
    assert mcnemar_p(5, 1) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar_p(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar_p(3, 3) == mcnemar_p(0, 0) == 1.0


@given(n10=st.integers(0, 400), n01=st.integers(0, 400))
def test_mcnemar_agrees_with_scipy_and_does_not_know_which_method_is_first(n10, n01):
    expected = binomtest(n10, n10 + n01, 0.5).pvalue if n10 + n01 else 1.0
    assert mcnemar_p(n10, n01) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(n01, n10) == mcnemar_p(n10, n01)


@given(signs=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60), size=st.integers(1, 7))
def test_differences_of_one_size_are_told_apart_by_mcnemar_alone(signs, size):
    differences = size * np.array(signs)
    assert paired_p(differences) == mcnemar_p(signs.count(1), signs.count(-1))


@pytest.mark.parametrize(
    "differences", [[3, 2, 2, 1, 1, 1, -1, 0, 2, -1], [1, -2, 3, 0, 1, 2, -1], [2, 2, 2, 1, 3, 3, 1]]
)
def test_differences_of_several_sizes_are_compared_with_all_flips_of_their_signs(differences):
    sums = [abs(np.dot(signs, differences)) for signs in product([-1, 1], repeat=len(differences))]
    exact = np.mean(np.array(sums) >= abs(sum(differences)))
    found = paired_p(np.array(differences))
    assert found == pytest.approx(exact, abs=1e-4 + 5 * np.sqrt(exact * (1 - exact) / SIGN_FLIPS))
    assert found == paired_p(np.array(differences)) == paired_p(-np.array(differences))


def test_holm_multiplies_the_smallest_most_and_never_turns_the_order():
    corrected = holm({"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.5})
    assert list(corrected) == ["a", "b", "c", "d"]
    # 4 x .01; 3 x .03; 2 x .04 = .08 is below the one before it; 1 x .5
    assert corrected == pytest.approx({"b": 0.04, "a": 0.09, "c": 0.09, "d": 0.5})
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_calibration_is_the_gap_of_a_bin_by_its_share_of_the_images():
    stated, hits = np.array([0.4, 0.2, 0.9, 0.7]), np.array([False, False, True, True])
    # up to .5: right 0, stated .3; above: right 1, stated .8; half of the images each
    assert calibration_error(stated, hits, 2) == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)
    assert calibration_error(stated, hits, 1) == pytest.approx(abs(0.5 - 0.55))
    assert calibration_error(stated, hits, 10) == pytest.approx((0.4 + 0.2 + 0.1 + 0.3) / 4)


def test_a_probability_on_an_edge_belongs_to_the_bin_below_and_0_to_the_first():
    stated, hits = np.array([0.5, 0.0, 0.75, 1.0]), np.array([True, False, False, True])
    # up to .5: right 1 of 2, stated .25; above: right 1 of 2, stated .875
    assert calibration_error(stated, hits, 2) == pytest.approx(0.5 * 0.25 + 0.5 * 0.375)


@given(hits=st.lists(st.booleans(), min_size=1, max_size=40), bins=st.integers(1, 30))
def test_certain_predictions_are_miscalibrated_by_their_errors(hits, bins):
    assert calibration_error(np.ones(len(hits)), np.array(hits), bins) == pytest.approx(1 - np.mean(hits))
