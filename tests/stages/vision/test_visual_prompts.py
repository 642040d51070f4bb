"""Visual prompts: every painted pixel against Pillow's drawing, or the formula in a loop."""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import pytest
import torch

from stages.vision.crops import image_tensor
from stages.vision.visual_prompts import circled, highlighted, masked

BOXES = np.array([[10, 5, 50, 35], [0, 0, 64, 40], [63, 39, 64, 40]])


def inside(box, height: int = 40, width: int = 64) -> np.ndarray:
    """Bool `[H, W, 1]`: the pixels of a box."""
    x0, y0, x1, y1 = box
    rows, columns = np.mgrid[:height, :width]
    return ((rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1))[..., None]


def rgb(images) -> list[np.ndarray]:
    return [image.permute(1, 2, 0).numpy() for image in images]


def test_a_mask_leaves_the_box_and_covers_the_rest(natural):
    picture = natural(40, 64)
    for color in ((0, 0, 0), (122, 117, 104)):
        painted = rgb(masked(image_tensor(picture), BOXES, color))
        for box, found in zip(BOXES, painted, strict=True):
            np.testing.assert_array_equal(found, np.where(inside(box), picture, np.array(color, dtype=np.uint8)))


def test_a_highlight_dims_the_rest(natural):
    picture = natural(40, 64)
    for dim in (0.0, 0.5, 1.0):
        painted = rgb(highlighted(image_tensor(picture), BOXES, dim=dim))
        for box, found in zip(BOXES, painted, strict=True):
            # np.rint rounds halves to even, as torch does
            np.testing.assert_array_equal(found, np.where(inside(box), picture, np.rint(picture * dim)))


def test_a_highlight_may_blur_the_rest(natural):
    picture = natural(40, 64)
    soft = np.asarray(PIL.Image.fromarray(picture).filter(PIL.ImageFilter.GaussianBlur(0.1 * 40)))
    painted = rgb(highlighted(image_tensor(picture), BOXES, dim=1.0, blur=0.1))
    for box, found in zip(BOXES, painted, strict=True):
        np.testing.assert_array_equal(found, np.where(inside(box), picture, soft))


@pytest.mark.parametrize(("line", "width"), [(0.01, 1), (0.05, 2), (0.1, 4)])
def test_a_circle_is_pillows_ellipse(line, width, natural):
    picture = natural(40, 64)
    for box, found in zip(BOXES[:2], rgb(circled(image_tensor(picture), BOXES[:2], line=line)), strict=True):
        drawn = PIL.Image.fromarray(picture)
        x0, y0, x1, y1 = box.tolist()
        # at four times the size Pillow's own rounding of edges no longer matters
        large = PIL.Image.new("1", (64 * 4, 40 * 4))
        corners = (4 * x0, 4 * y0, 4 * x1 - 1, 4 * y1 - 1)
        PIL.ImageDraw.Draw(large).ellipse(corners, outline=1, width=4 * width)
        ring = np.asarray(large).reshape(40, 4, 64, 4).mean(axis=(1, 3))
        red = (found == (255, 0, 0)).all(axis=-1)
        assert red[ring > 0.75].all()
        assert not red[ring < 0.25].any()
        np.testing.assert_array_equal(found[~red], np.asarray(drawn)[~red])


def test_a_circle_by_hand():
    # box of 6 x 4 pixels, line of one: an ellipse of half axes 3 and 2 without one of 2 and 1
    image = torch.zeros(3, 6, 8, dtype=torch.uint8)
    (found,) = rgb(circled(image, np.array([[1, 1, 7, 5]])))
    assert ["".join("#" if red else "." for red in row) for row in found[..., 0] == 255] == [
        "........",
        "..####..",
        ".#....#.",
        ".#....#.",
        "..####..",
        "........",
    ]


def test_a_circle_too_small_for_its_line_is_a_disc():
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    (found,) = rgb(circled(image, np.array([[10, 10, 14, 12]]), line=0.1))
    assert (found[..., 0] == 255).sum() == 8  # the ellipse of half axes 2 and 1 holds the middle of every pixel
    assert found[..., 1:].max() == 0


def test_the_image_itself_is_left_alone(natural):
    image = image_tensor(natural(40, 64))
    before = image.clone()
    for painted in (masked(image, BOXES), highlighted(image, BOXES), circled(image, BOXES)):
        for copy in painted:
            copy += 1
    assert torch.equal(image, before)
