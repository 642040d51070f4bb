"""Crops of two photographs against Pillow: crop, resize the shorter side, centre-crop, one box after another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision import transforms

from stages.vision.crops import _resample, image_tensor, preprocess_whole, resize_crops, squash
from stages.vision.decode import reduce_image, reduction

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


@pytest.fixture(scope="module", params=["china.jpg", "flower.jpg"])
def photograph(request) -> np.ndarray:
    """uint8 [427, 640, 3]"""
    return load_sample_image(request.param)


def by_matrices(image: torch.Tensor, boxes: np.ndarray, size: int) -> torch.Tensor:
    """What other devices than the CPU compute, on the CPU."""
    return _resample(image, boxes, size)


def by_pillow(image: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    steps = transforms.Compose(
        [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    )
    pictures = [steps(Image.fromarray(image).crop(tuple(box))) for box in boxes.tolist()]
    return np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2).astype(np.int64)


def across_then_down(image: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """The same, with Pillow held to the order that it kept until version 12, whatever the box."""
    crops = []
    for box in boxes.tolist():
        cut = Image.fromarray(image).crop(tuple(box))
        shorter = min(cut.size)
        width, height = (int(size * side / shorter) for side in cut.size)
        resized = cut.resize((width, cut.height), BICUBIC).resize((width, height), BICUBIC)
        crops.append(np.asarray(transforms.CenterCrop(size)(resized)))
    return np.stack(crops).transpose(0, 3, 1, 2).astype(np.int64)


def drawn(rng: np.random.Generator, count: int, width: Callable, height: Callable) -> np.ndarray:
    """Boxes somewhere in the photograph; `width()` and `height(width)` are theirs."""
    boxes = []
    for _ in range(count):
        w = int(width())
        h = int(height(w))
        x, y = int(rng.integers(0, 640 - w + 1)), int(rng.integers(0, 427 - h + 1))
        boxes.append([x, y, x + w, y + h])
    return np.array(boxes)


def squares(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return drawn(rng, count, lambda: rng.integers(20, 428), lambda w: w)


def wide(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return drawn(rng, count, lambda: rng.integers(80, 641), lambda w: rng.integers(max(8, w // 12), min(w, 428)))


def tall(count: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    return drawn(rng, count, lambda: rng.integers(20, 250), lambda w: rng.integers(w, min(427, 12 * w) + 1))


def thin(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    some = drawn(rng, count, lambda: rng.integers(1, 5), lambda w: rng.integers(1, 5))
    return np.concatenate(
        [
            some,
            drawn(rng, count, lambda: rng.integers(1, 5), lambda w: rng.integers(5, 428)),
            drawn(rng, count, lambda: rng.integers(5, 641), lambda w: rng.integers(1, 5)),
        ]
    )


def assert_within(difference: np.ndarray, largest: int, share_within_one: float = 0.999) -> None:
    assert difference.max() <= largest
    assert (difference <= 1).mean() >= share_within_one


@pytest.mark.parametrize("resize", [resize_crops, by_matrices])
@pytest.mark.parametrize("size", [64, 224, 336])
def test_square_and_wide_crops_agree_with_pillow(photograph, resize, size):
    boxes = np.concatenate([squares(12), wide(8), [[0, 0, 640, 427], [10, 20, 10 + size, 20 + size]]])
    found = resize(image_tensor(photograph), boxes, size).numpy()
    assert_within(np.abs(found - by_pillow(photograph, boxes, size)), 2)


@pytest.mark.parametrize("resize", [resize_crops, by_matrices])
@pytest.mark.parametrize("size", [64, 224])
def test_tall_crops_agree_with_pillow_that_filters_across_first_and_nearly_with_any(photograph, resize, size):
    boxes = tall(20)
    found = resize(image_tensor(photograph), boxes, size).numpy()
    assert_within(np.abs(found - across_then_down(photograph, boxes, size)), 2)
    assert_within(np.abs(found - by_pillow(photograph, boxes, size)), 8, 0.995)


@pytest.mark.parametrize("resize", [resize_crops, by_matrices])
def test_boxes_of_a_few_pixels_agree_with_pillow_and_those_of_one_are_equal(photograph, resize):
    boxes, image = thin(6), image_tensor(photograph)
    assert_within(np.abs(resize(image, boxes, 64).numpy() - across_then_down(photograph, boxes, 64)), 2)
    ones = np.array([[x, x, x + 1, x + 1] for x in (0, 99, 426)])
    assert (resize(image, ones, 64).numpy() == photograph[[0, 99, 426], [0, 99, 426]][:, :, None, None]).all()


@pytest.mark.parametrize(("height", "width"), [(427, 640), (90, 64), (224, 300)])
def test_whole_images_agree_with_pillow_at_clips_size(photograph, height, width):
    image = np.ascontiguousarray(photograph[:height, :width])
    found = preprocess_whole(image_tensor(image), 224).numpy()
    assert_within(np.abs(found - across_then_down(image, np.array([[0, 0, width, height]]), 224)[0]), 2)


@pytest.mark.parametrize(("name", "filtered"), [("bilinear", BILINEAR), ("bicubic", BICUBIC)])
@pytest.mark.parametrize("size", [56, 224])
def test_squash_agrees_with_pillow_where_both_sides_shrink_or_grow(photograph, size, name, filtered):
    for image in (photograph, photograph[100:140, 50:100]):
        theirs = np.asarray(Image.fromarray(image).resize((size, size), filtered)).transpose(2, 0, 1)
        assert_within(np.abs(squash(image_tensor(image), size, interpolation=name).numpy() - theirs.astype(int)), 2)


@pytest.mark.parametrize(("size", "factor"), [(64, 2), (64, 3), (32, 5)])
def test_crops_of_a_reduced_picture_are_close_to_crops_of_the_full_one(photograph, size, factor):
    rng = np.random.default_rng(0)
    smallest = 2 * size * factor
    assert reduction(640, 427, smallest, size) == factor
    cells = drawn(rng, 20, lambda: smallest + factor * rng.integers(0, (427 - smallest) // factor + 1), lambda w: w)
    boxes = cells // factor * factor  # corners on multiples of the factor
    full = resize_crops(image_tensor(photograph), boxes, size)
    reduced = resize_crops(image_tensor(reduce_image(photograph, factor)), boxes // factor, size)
    difference = (full - reduced).abs().numpy()
    assert np.quantile(difference, 0.999) <= 8
    assert difference.max() <= 13
    assert difference.mean() <= 1
