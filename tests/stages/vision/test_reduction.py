"""Pictures are averaged down by whole factors before crops are cut, as far as the smallest crop allows."""

from __future__ import annotations

import numpy as np
import pytest

from stages.vision.decode import DETAIL, reduce_image, reduction


def by_loops(pixels: np.ndarray, factor: int) -> np.ndarray:
    rows = []
    for y in range(0, pixels.shape[0], factor):
        boxes = [pixels[y : y + factor, x : x + factor] for x in range(0, pixels.shape[1], factor)]
        rows.append([box.mean(axis=(0, 1)) for box in boxes])
    return np.array(rows)


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("shape", [(24, 30), (25, 31), (7, 9), (1, 50), (3, 3)])
def test_reduced_pictures_are_box_averages_with_cut_boxes_at_the_edges(natural, factor, shape):
    pixels = natural(*shape)
    exact = by_loops(pixels, factor)
    reduced = reduce_image(pixels, factor)
    assert reduced.shape == exact.shape
    assert np.abs(reduced - exact).max() <= 2 / 3 + 1e-9
    assert (reduce_image(np.full_like(pixels, 77), factor) == 77).all()


def test_factor_one_changes_nothing_and_smaller_ones_are_refused(natural):
    pixels = natural(9, 9)
    assert reduce_image(pixels, 1) is pixels
    with pytest.raises(ValueError, match="factor is a whole number from 1, not 0"):
        reduce_image(pixels, 0)


def test_the_factor_is_the_largest_that_leaves_the_smallest_crop_its_detail():
    assert reduction(4000, 3000, 0.5 * 3000, 224) == 3  # 1500 / 448 = 3.3
    assert reduction(4000, 3000, 1344, 224) == 3  # 448 * 3, exactly
    assert reduction(4000, 3000, 1343, 224) == 2
    assert reduction(500, 375, 0.5 * 375, 224) == 1
    assert reduction(9000, 3000, 5000, 224) == 6, "no crop is larger than the picture"
    assert reduction(1, 1, 0.1, 224) == 1
    for side in range(1, 5000, 37):
        factor = reduction(5000, 5000, side, 224)
        assert side / (factor + 1) < DETAIL * 224
        assert factor == 1 or side / factor >= DETAIL * 224
