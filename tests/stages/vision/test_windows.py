"""Enlarged windows are F.interpolate's, and windows that are none are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.vision.windows import check_windows, enlarge, resizers, span_table

GRID = 5
TABLE = span_table(GRID)


@st.composite
def spans(draw):
    start = draw(st.integers(0, GRID - 1))
    return start, draw(st.integers(start + 1, GRID))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(spans(), spans()), min_size=1, max_size=3))
def test_a_window_is_enlarged_as_interpolate_does(windows):
    patches = torch.randn(2, GRID * GRID, 3, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([[[r0, c0, r1, c1] for (r0, r1), (c0, c1) in windows]] * 2)
    found = enlarge(patches, *resizers(TABLE, places))
    for number, image in enumerate(patches.mT.reshape(2, 3, GRID, GRID)):
        for place, ((r0, r1), (c0, c1)) in enumerate(windows):
            expected = F.interpolate(image[None, :, r0:r1, c0:c1], size=(GRID, GRID), mode="bicubic")[0]
            torch.testing.assert_close(found[number, place], expected.flatten(1).T, rtol=1e-5, atol=1e-5)


def test_the_rows_of_every_span_sum_to_one_and_read_nothing_outside_it():
    for start in range(GRID):
        for end in range(start + 1, GRID + 1):
            matrix = TABLE[start, end]
            torch.testing.assert_close(matrix.sum(dim=1), torch.ones(GRID))
            assert not matrix[:, :start].any()
            assert not matrix[:, end:].any()


def test_read_only_windows_of_any_integer_type_are_taken():
    windows = np.array([[[0, 0, 2, 5]]], dtype=np.int32)
    windows.flags.writeable = False
    assert check_windows(windows, 1, GRID).tolist() == [[[0, 0, 2, 5]]]


@pytest.mark.parametrize("window", [[0, 0, 6, 5], [-1, 0, 2, 2], [2, 2, 2, 3]])
def test_a_window_outside_the_grid_is_refused(window):
    with pytest.raises(ValueError, match=r"is empty or leaves the 5 x 5 grid"):
        check_windows(torch.tensor([[[0, 0, 1, 1], window]]), 1, GRID)


def test_windows_of_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match=r"must have the shape \[2, N, 4\], got \[1, 1, 4\]"):
        check_windows(np.zeros((1, 1, 4)), 2, GRID)
