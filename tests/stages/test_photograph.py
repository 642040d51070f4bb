"""A photograph travels no larger than its crops need, and a table's pixels depend on that table alone."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from stages.photograph import LARGEST_GUIDE, decode_photograph, photograph_of
from stages.settings import GuidedView, RandomView
from stages.vision.decode import DETAIL, UnreadableImage, reduce_image

SIZE = 32
GUIDED = GuidedView(guide="clip", min_side=0.5)
RANDOM = RandomView(min_area=0.25, min_aspect=1.0, max_aspect=1.0)


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)


def test_a_small_image_is_left_alone_and_its_pixels_are_there_once(picture):
    pixels = picture("small", 60, 40)
    photograph = photograph_of(pixels, {"a": GUIDED, "b": RANDOM}, SIZE, full=False)
    assert (photograph.width, photograph.height) == (60, 40)
    assert set(photograph.pixels) == {"whole", "a", "b"}
    assert all(seen is pixels for seen in photograph.pixels.values())


def test_a_large_image_is_reduced_to_twice_what_the_smallest_crop_needs(large):
    photograph = photograph_of(large, {"a": GUIDED}, SIZE, full=False)
    assert (photograph.width, photograph.height) == (1600, 1200)
    assert DETAIL == 2
    factor = 1200 // 2 // (2 * SIZE)  # half of 1200 pixels, and 64 of them are needed
    assert factor == 9
    np.testing.assert_array_equal(photograph.pixels["a"], reduce_image(large, 9))
    assert min(photograph.pixels["a"].shape[:2]) * 0.5 >= 2 * SIZE


def test_the_whole_image_keeps_what_the_largest_guide_needs(large):
    tall = np.concatenate([large] * 4)  # 4800 x 1600
    photograph = photograph_of(tall, {}, SIZE, full=False)
    assert photograph.pixels["whole"].shape[1] == 1600 // (1600 // (2 * LARGEST_GUIDE))
    again = photograph_of(np.concatenate([tall, tall], axis=1), {}, SIZE, full=False)
    assert min(again.pixels["whole"].shape[:2]) >= 2 * LARGEST_GUIDE
    assert again.pixels["whole"].shape[0] < 4800


def test_what_a_table_sees_does_not_depend_on_the_other_tables(large):
    alone = photograph_of(large, {"a": GUIDED}, SIZE, full=False)
    beside = photograph_of(large, {"a": GUIDED, "b": RandomView(min_area=0.01)}, SIZE, full=False)
    assert beside.pixels["b"].shape != beside.pixels["a"].shape
    for name in ("a", "whole"):
        np.testing.assert_array_equal(alone.pixels[name], beside.pixels[name])


def test_full_size_is_a_setting(large):
    photograph = photograph_of(large, {"a": GUIDED}, SIZE, full=True)
    assert all(seen is large for seen in photograph.pixels.values())


def test_a_file_is_decoded_once_and_timed(large):
    file = io.BytesIO()
    PIL.Image.fromarray(large).save(file, "png")
    photograph = decode_photograph(file.getvalue(), {"a": GUIDED}, SIZE, full=False)
    np.testing.assert_array_equal(photograph.pixels["a"], reduce_image(large, 9))
    assert photograph.seconds > 0
    with pytest.raises(UnreadableImage):
        decode_photograph(b"no picture", {"a": GUIDED}, SIZE, full=False)
