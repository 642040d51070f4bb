"""Sixteen numbers at a time, against numpy."""

from __future__ import annotations

import numba
import numpy as np

from stages.matching.exponential import exp
from stages.matching.lanes import WIDTH, above, highest, load, spread, store, total


@numba.njit
def exponentials(numbers, found):
    for at in range(0, len(numbers), WIDTH):
        store(found, at, exp(load(numbers, at)))


@numba.njit
def arithmetic(x, y, found):
    one, other = load(x, 3), load(y, 0)
    store(found, 0, one + other)
    store(found, WIDTH, one - other)
    store(found, 2 * WIDTH, one * other)
    store(found, 3 * WIDTH, one / other)
    store(found, 4 * WIDTH, above(one, other, one, spread(7.0)))
    return total(other), highest(other)


def test_an_exponential_is_exact_to_two_units_in_the_last_place():
    rng = np.random.default_rng(0)
    numbers = np.concatenate([-np.geomspace(1e-7, 87, 80_000), rng.uniform(-87, 0, 80_000), [0.0] * WIDTH])
    numbers = numbers.astype(np.float32)
    found = np.empty_like(numbers)
    exponentials(numbers, found)
    exact = np.exp(numbers.astype(np.float64))
    assert np.abs(found / exact - 1).max() < 2e-7
    assert (found[-WIDTH:] == 1).all()


def test_an_exponential_far_below_stays_small_and_finite():
    numbers = np.full(WIDTH, -np.inf, np.float32)
    numbers[:4] = [-87.5, -200.0, -1e30, np.nan]
    found = np.empty_like(numbers)
    exponentials(numbers, found)
    assert ((found > 0) & (found < 2e-38)).all()


def test_operations_are_those_of_numpy_lane_by_lane():
    rng = np.random.default_rng(1)
    x, y = (rng.uniform(0.5, 2, 3 * WIDTH).astype(np.float32) for _ in range(2))
    found = np.empty(5 * WIDTH, np.float32)
    of_y = arithmetic(x, y, found)
    one, other = x[3 : 3 + WIDTH], y[:WIDTH]
    expected = [one + other, one - other, one * other, one / other, np.where(one > other, one, 7)]
    np.testing.assert_allclose(found.reshape(5, WIDTH), expected, rtol=3e-7)
    np.testing.assert_allclose(of_y, [other.sum(), other.max()], rtol=1e-6)


def test_a_nan_is_above_nothing():
    x = np.full(2 * WIDTH, np.nan, np.float32)
    y, found = np.ones(WIDTH, np.float32), np.empty(5 * WIDTH, np.float32)
    arithmetic(x, y, found)
    assert (found[4 * WIDTH :] == 7).all()
