"""Boxes and windows: golden numbers of algorithms.md 8.1-8.3, and promises that hold for every image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.vision.boxes import draw_cells, feature_windows, guided_boxes, image_rng, random_boxes


class Fixed:
    """A generator that gives the uniform numbers it was told, in order."""

    def __init__(self, *numbers: float):
        self.numbers = list(numbers)

    def random(self, size):
        count = int(np.prod(size))
        given, self.numbers = self.numbers[:count], self.numbers[count:]
        return np.array(given, dtype=np.float64).reshape(size)


def one_cell(row: int, column: int, grid: int = 14) -> np.ndarray:
    saliency = np.zeros((grid, grid))
    saliency[row, column] = 1.0
    return saliency


def guided(saliency, width, height, *, crops=1, low=0.5, high=0.9, top_k=1, temperature=0.03, rng):
    sides = {"min_side": low, "max_side": high}
    return guided_boxes(saliency, width, height, crops=crops, **sides, top_k=top_k, temperature=temperature, rng=rng)


def windows_of(cells, *, guide_grid=14, grid, width=224, height=224, low=0.5, high=0.9, frame="corrected", rng=None):
    rng = rng or image_rng(0, "a", "windows")
    sides = {"min_side": low, "max_side": high}
    return feature_windows(
        np.array(cells),
        guide_grid=guide_grid,
        grid=grid,
        width=width,
        height=height,
        **sides,
        frame=frame,
        rng=rng,
    )


def test_an_image_keeps_its_draws_and_shares_them_with_no_other():
    first = image_rng(7, "birds/é 1.jpg", "guided").random(4)
    assert first.tolist() == image_rng(7, "birds/é 1.jpg", "guided").random(4).tolist()
    for other in [
        (8, "birds/é 1.jpg", "guided"),
        (7, "birds/é 2.jpg", "guided"),
        (7, "birds/é 1.jpg", "random"),
    ]:
        assert first.tolist() != image_rng(*other).random(4).tolist()


def test_draws_are_the_same_on_every_machine():
    assert image_rng(0, "a.jpg", "raw").random(2).tolist() == [0.787434205684266, 0.2555780062161094]


def test_the_500_by_375_example_of_the_specification():
    # cell (5, 9): centre (338, 146); the draws make width 400 of 250..450 and height 200 of 187..337
    rng = Fixed(0.5, (400 - 250 + 0.5) / 201, (200 - 187 + 0.5) / 151)
    boxes, cells = guided(one_cell(5, 9), 500, 375, rng=rng)
    assert cells.tolist() == [[5, 9]]
    assert boxes.tolist() == [[138, 46, 500, 246]]
    assert boxes.dtype == np.int32


def test_salient_cells_are_drawn_by_softmax_with_the_temperature():
    # values .05, .02, .01: .613, .225, .162 at temperature .03 (algorithms.md 8.1)
    saliency = np.array([[0.05, 0.02], [0.01, 0.0]])
    uniform = (np.arange(1000) + 0.5) / 1000
    cells = draw_cells(saliency, crops=1000, top_k=3, temperature=0.03, rng=Fixed(*uniform))
    counts = np.bincount(cells[:, 0] * 2 + cells[:, 1], minlength=4)
    assert counts.tolist() == [613, 225, 162, 0]


def test_an_even_map_is_drawn_from_evenly_whatever_top_k():
    cells = draw_cells(
        np.ones((14, 14)), crops=196, top_k=20, temperature=0.03, rng=Fixed(*((np.arange(196) + 0.5) / 196))
    )
    assert len({tuple(cell) for cell in cells.tolist()}) == 196


def test_more_cells_than_the_grid_has_are_all_of_them():
    assert draw_cells(np.eye(2), crops=3, top_k=99, temperature=1.0, rng=image_rng(0, "a", "b")).shape == (
        3,
        2,
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([2, 7, 14, 37]), st.integers(0, 99))
def test_every_box_lies_in_its_image_and_holds_a_pixel(width, height, grid, seed):
    rng = image_rng(seed, "image", "boxes")
    saliency = rng.random((grid, grid))
    drawn, cells = guided(saliency, width, height, crops=8, low=0.01, high=1.0, top_k=20, rng=rng)
    area = random_boxes(width, height, crops=8, min_area=0.001, max_area=1.0, rng=rng)
    side = random_boxes(width, height, crops=8, min_area=0.1, max_area=0.75, scale_mode="side", rng=rng)
    x0, y0, x1, y1 = np.concatenate([drawn, area, side]).T
    assert (x0 >= 0).all()
    assert (y0 >= 0).all()
    assert (x1 <= width).all()
    assert (y1 <= height).all()
    assert (x1 > x0).all()
    assert (y1 > y0).all()
    assert ((cells >= 0) & (cells < grid)).all()
    for frame in ("corrected", "official"):
        windows = windows_of(cells, guide_grid=grid, grid=16, width=width, height=height, frame=frame, rng=rng)
        assert ((windows[:, :2] >= 0) & (windows[:, :2] < windows[:, 2:]) & (windows[:, 2:] <= 16)).all()


def test_random_boxes_keep_area_and_aspect_in_range():
    boxes = random_boxes(400, 400, crops=2000, min_area=0.10, max_area=0.75, rng=image_rng(0, "a", "b"))
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    area, aspect = width * height / 400**2, width / height
    assert 0.098 < area.min() < 0.12
    assert 0.7 < area.max() < 0.755
    assert 0.74 < aspect.min() < 0.77
    assert 1.30 < aspect.max() < 1.35
    assert abs(area.mean() - 0.425) < 0.02
    assert abs(np.log(aspect).mean()) < 0.02


def test_side_mode_squares_the_fraction():
    # a fraction of .5 of the side is .25 of the area: 100 x 100 of 200 x 200 at aspect 1
    options = {"crops": 1, "min_area": 0.5, "max_area": 0.5, "min_aspect": 1.0, "max_aspect": 1.0}
    boxes = random_boxes(200, 200, **options, scale_mode="side", rng=Fixed(*[0.0] * 40))
    assert boxes.tolist() == [[0, 0, 100, 100]]


def test_a_box_that_never_fits_becomes_the_largest_central_one():
    # as torchvision: 400 x 100 at most 4/3 wide -> 133 x 100, centred
    boxes = random_boxes(400, 100, crops=2, min_area=1.0, max_area=1.0, rng=image_rng(0, "a", "b"))
    assert boxes.tolist() == [[133, 0, 266, 100]] * 2


@pytest.mark.parametrize(
    ("grid", "low", "table"),
    [
        (7, 0.5, [3, 5, 5, 7]),
        (14, 0.5, [7, 9, 9, 11, 11, 13]),
        (16, 0.5, [9, 9, 11, 11, 13, 13, 15]),
        (7, 0.6, [5, 5, 7]),
        (14, 0.6, [9, 9, 11, 11, 13]),
        (16, 0.6, [9, 11, 11, 13, 13, 15]),
    ],
)
def test_one_entry_of_the_window_table_for_every_size_drawn(grid, low, table):
    # at the corner cell only half a window is left: (side + 1) / 2 tokens
    uniform = (np.arange(len(table)) + 0.5) / len(table)
    windows = windows_of([[0, 0]] * len(table), grid=grid, low=low, rng=Fixed(*uniform))
    assert windows.tolist() == [[0, 0, (side + 1) // 2, (side + 1) // 2] for side in table]


def test_cells_of_a_square_image_map_to_the_nearest_token():
    # L/14: 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15 corrected; the official map never reaches 7 and 15
    def centres(frame):
        windows = windows_of(
            [[k, k] for k in range(14)], grid=16, low=1 / 16, high=1 / 16, frame=frame, rng=Fixed(*[0.0] * 14)
        )
        return windows[:, 0].tolist()

    assert centres("corrected") == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15]
    assert centres("official") == [k * 16 // 14 for k in range(14)]


def test_the_corrected_frame_follows_the_centre_crop():
    # 448 x 224: the crop keeps columns 112..336, so guide columns 0..3 lie left of it and 3.5 is its edge
    def columns(frame):
        cells = [[7, c] for c in (0, 3, 4, 6, 7, 13)]
        windows = windows_of(cells, grid=14, width=448, low=1 / 14, high=1 / 14, frame=frame, rng=Fixed(*[0.0] * 6))
        return windows[:, 1].tolist()

    assert columns("corrected") == [0, 0, 2, 6, 8, 13]
    assert columns("official") == [0, 3, 4, 6, 7, 13]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda rng: random_boxes(9, 9, crops=1, min_area=0.5, max_area=0.1, rng=rng),
            "min_area and max_area",
        ),
        (lambda rng: guided(np.ones((3, 4)), 9, 9, rng=rng), "square grid"),
        (lambda rng: guided(np.full((3, 3), np.nan), 9, 9, rng=rng), "finite"),
        (lambda rng: windows_of([[0, 0]], grid=7, frame="wrong", rng=rng), "'corrected' or 'official'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(image_rng(0, "a", "b"))
