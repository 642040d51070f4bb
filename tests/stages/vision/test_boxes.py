"""Boxes and windows: golden numbers of algorithms.md 8.1-8.3, and promises that hold for every image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.vision.boxes import (
    boxes_at,
    draw_cells,
    feature_windows,
    guided_boxes,
    image_rng,
    paired_windows,
    random_boxes,
    square_boxes,
)


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


def test_squares_have_the_side_and_the_place_that_were_drawn():
    # u = .5 + .25 of .5..0.9 = .6: int(.6 * 50) = 30; left 0..70 and top 0..20 at their middles
    boxes = square_boxes(100, 50, crops=1, min_side=0.5, max_side=0.9, rng=Fixed(0.25 + 1e-9, 0.5, 0.5))
    assert boxes.tolist() == [[35, 10, 65, 40]]
    assert boxes.dtype == np.int32


def test_squares_reach_every_edge_and_keep_their_range():
    boxes = square_boxes(40, 30, crops=5000, min_side=0.1, max_side=0.9, rng=image_rng(0, "a", "b"))
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    assert (width == height).all()
    assert set(width.tolist()) == set(range(3, 27))
    assert boxes.min(axis=0)[:2].tolist() == [0, 0]
    assert boxes.max(axis=0)[2:].tolist() == [40, 30]


def test_a_square_of_a_tiny_image_is_one_pixel():
    # int(.1 * 5) = 0, on which the published code fails (algorithms.md 6)
    boxes = square_boxes(5, 9, crops=50, min_side=0.1, max_side=0.1, rng=image_rng(0, "a", "b"))
    assert (boxes[:, 2:] - boxes[:, :2] == 1).all()
    assert (boxes >= 0).all()
    assert (boxes <= [5, 9, 5, 9]).all()


@pytest.mark.parametrize(
    ("grid", "low", "sides"),
    [(7, 0.5, {3, 5, 7}), (14, 0.5, {7, 9, 11, 13}), (16, 0.5, {9, 11, 13, 15}), (14, 0.6, {9, 11, 13})],
)
def test_shared_windows_of_a_square_image_have_the_centres_and_sides_of_independent_ones(grid, low, sides):
    rng = image_rng(0, "a", "b")
    size = 14 * 16 * 8  # a whole number of pixels for every cell and token
    boxes, cells = guided(one_cell(7, 6), size, size, crops=3000, low=low, rng=rng)
    windows = paired_windows(boxes, cells, guide_grid=14, grid=grid, width=size, height=size, frame="corrected")
    centre = windows_of([[7, 6]], grid=grid, width=size, height=size, low=1 / grid, high=1 / grid, rng=Fixed(0.0))
    row, column = centre[0, :2].tolist()
    down = np.maximum(row - windows[:, 0], windows[:, 2] - 1 - row)
    across = np.maximum(column - windows[:, 1], windows[:, 3] - 1 - column)
    assert set((2 * down + 1).tolist()) == set((2 * across + 1).tolist()) == sides
    # the window follows its own box: height with height, width with width
    assert (down == (boxes[:, 3] - boxes[:, 1]) // 2 * grid // size)[boxes[:, 1] > 0].all()
    assert (across == (boxes[:, 2] - boxes[:, 0]) // 2 * grid // size)[boxes[:, 0] > 0].all()


def test_the_shared_window_of_the_500_by_375_example():
    # centre (338, 146), halves 200 (cut to 162 on the right) and 100. Corrected: tokens span 375 pixels from x = 62.5;
    # cell (5, 9) is token row 5 and column floor((339.29 - 62.5) / 375 * 14) = 10; 200 -> 7 tokens, 100 -> 3 tokens.
    # Official: row 5, column 9; 200 / 500 -> 5 tokens, 100 / 375 -> 3 tokens.
    rng = Fixed(0.5, (400 - 250 + 0.5) / 201, (200 - 187 + 0.5) / 151)
    boxes, cells = guided(one_cell(5, 9), 500, 375, rng=rng)
    frame = {"guide_grid": 14, "grid": 14, "width": 500, "height": 375}
    assert paired_windows(boxes, cells, **frame, frame="corrected").tolist() == [[2, 3, 9, 14]]
    assert paired_windows(boxes, cells, **frame, frame="official").tolist() == [[2, 4, 9, 14]]


def test_boxes_go_to_the_nearest_edge_of_a_reduced_image():
    boxes = np.array([[0, 0, 500, 375], [138, 46, 500, 246], [3, 3, 4, 4], [499, 374, 500, 375]])
    # By two: 375 rows become 188, 3 -> 1.5 -> 2 and 4 -> 2: kept alive. By three: 138 -> 46, 46 -> 15.3, 500 -> 166.7.
    assert boxes_at(boxes, 2, 250, 188).tolist() == [
        [0, 0, 250, 188],
        [69, 23, 250, 123],
        [2, 2, 3, 3],
        [249, 187, 250, 188],
    ]
    assert boxes_at(boxes, 3, 167, 125)[:2].tolist() == [[0, 0, 167, 125], [46, 15, 167, 82]]
    assert boxes_at(boxes, 1, 500, 375).tolist() == boxes.tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 9), st.integers(0, 99))
def test_squares_shared_windows_and_reduced_boxes_are_never_empty(width, height, factor, seed):
    rng = image_rng(seed, "image", "boxes")
    drawn, cells = guided(rng.random((7, 7)), width, height, crops=8, low=0.01, high=1.0, top_k=20, rng=rng)
    squares = square_boxes(width, height, crops=8, min_side=0.01, max_side=1.0, rng=rng)
    boxes = np.concatenate([drawn, squares])
    assert (boxes_at(boxes, 1, width, height) == boxes).all()
    w, h = -(-width // factor), -(-height // factor)
    for some, limit in ((boxes, (width, height)), (boxes_at(boxes, factor, w, h), (w, h))):
        assert ((some[:, :2] >= 0) & (some[:, :2] < some[:, 2:]) & (some[:, 2:] <= limit)).all()
    for frame in ("corrected", "official"):
        windows = paired_windows(drawn, cells, guide_grid=7, grid=16, width=width, height=height, frame=frame)
        assert ((windows[:, :2] >= 0) & (windows[:, :2] < windows[:, 2:]) & (windows[:, 2:] <= 16)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda rng: random_boxes(9, 9, crops=1, min_area=0.5, max_area=0.1, rng=rng),
            "min_area and max_area",
        ),
        (lambda rng: square_boxes(9, 9, crops=1, min_side=0.5, max_side=2.0, rng=rng), "min_side and max_side"),
        (lambda rng: guided(np.ones((3, 4)), 9, 9, rng=rng), "square grid"),
        (lambda rng: guided(np.full((3, 3), np.nan), 9, 9, rng=rng), "finite"),
        (lambda rng: windows_of([[0, 0]], grid=7, frame="wrong", rng=rng), "'corrected', 'official' or 'squashed'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(image_rng(0, "a", "b"))
