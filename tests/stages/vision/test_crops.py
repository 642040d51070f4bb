"""Crops against Pillow, the slow and obvious way: crop, resize the shorter side, centre-crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from stages.vision import crops as module
from stages.vision.crops import image_tensor, normalize, preprocess_whole, resize_crops, squash


def by_pillow(image: np.ndarray, boxes: list[list[int]], size: int) -> np.ndarray:
    steps = transforms.Compose(
        [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    )
    pictures = [steps(Image.fromarray(image).crop(tuple(box))) for box in boxes]
    return np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2).astype(np.int64)


def by_matrices(image: torch.Tensor, boxes: list[list[int]], size: int) -> torch.Tensor:
    """What other devices than the CPU compute, on the CPU."""
    return module._resample(image, np.array(boxes), size)


BOXES = [
    [0, 0, 300, 225],  # the whole image, shrunk
    [10, 20, 74, 84],  # exactly the size
    [5, 7, 45, 47],  # enlarged
    [100, 30, 130, 90],  # enlarged, taller than wide
    [0, 100, 300, 170],  # wide
    [250, 5, 300, 225],  # tall
    [10, 20, 74, 84],  # the same shape again
]


@pytest.mark.parametrize("resize", [resize_crops, by_matrices])
@pytest.mark.parametrize("size", [64, 37])
def test_crops_agree_with_pillow(natural, resize, size):
    image = natural(225, 300)
    difference = np.abs(resize(image_tensor(image), BOXES, size).numpy() - by_pillow(image, BOXES, size))
    assert difference.max() <= 2
    assert (difference <= 1).mean() >= 0.999


@pytest.mark.parametrize(("height", "width"), [(375, 500), (90, 64), (224, 300)])
def test_whole_images_agree_with_pillow_at_clips_size(natural, height, width):
    image = natural(height, width)
    difference = np.abs(
        preprocess_whole(image_tensor(image), 224).numpy() - by_pillow(image, [[0, 0, width, height]], 224)
    )
    assert difference.max() <= 2
    assert (difference <= 1).mean() >= 0.999


def test_thin_boxes_agree_with_pillow_and_cost_no_more_than_what_is_kept(natural):
    image = natural(300, 40)
    boxes = [[3, 4, 4, 5], [0, 0, 1, 300], [0, 7, 40, 8], [2, 0, 4, 300], [0, 0, 5, 40]]
    difference = np.abs(resize_crops(image_tensor(image), boxes, 16).numpy() - by_pillow(image, boxes, 16))
    assert difference.max() <= 2
    long = image_tensor(np.full((1, 200_000, 3), 77, dtype=np.uint8))  # 600 MB if it were enlarged whole
    assert (resize_crops(long, [[0, 0, 200_000, 1]], 32) == 77).all()


def test_values_are_whole_numbers_from_0_to_255(natural):
    black_and_white = np.kron(np.indices((12, 12)).sum(0) % 2 * 255, np.ones((5, 5))).astype(np.uint8)
    image = image_tensor(np.repeat(black_and_white[..., None], 3, axis=2))
    for resize in (resize_crops, by_matrices):
        crops = resize(image, [[0, 0, 60, 60], [3, 3, 20, 20]], 32)
        assert crops.dtype == torch.float32
        assert crops.shape == (2, 3, 32, 32)
        assert crops.min() == 0
        assert crops.max() == 255
        assert (crops == crops.round()).all()


def test_boxes_in_groups_by_matrices_equal_boxes_one_by_one(natural, monkeypatch):
    image = image_tensor(natural(60, 80))
    boxes = [[0, 0, 80, 60], [3, 4, 50, 30], [20, 10, 33, 60]]
    together = by_matrices(image, boxes, 24)
    monkeypatch.setattr(module, "WORKING_SET", 1)
    assert (together - by_matrices(image, boxes, 24)).abs().max() <= 1


def test_read_only_pixels_and_boxes_are_taken_without_a_warning(natural, recwarn):
    image, boxes = natural(30, 40), np.array([[0, 0, 40, 30]], dtype=np.int32)
    image.flags.writeable = boxes.flags.writeable = False
    assert resize_crops(image_tensor(image), boxes, 16).shape == (1, 3, 16, 16)
    assert len(recwarn) == 0


def test_no_boxes_give_no_crops(natural):
    assert resize_crops(image_tensor(natural(8, 8)), np.zeros((0, 4), np.int32), 16).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("box", [[0, 0, 41, 30], [-1, 0, 9, 9], [5, 5, 5, 9], [5, 9, 9, 5]])
def test_a_box_outside_the_image_is_refused(natural, box):
    with pytest.raises(ValueError, match="is empty or leaves an image of 40 x 30"):
        resize_crops(image_tensor(natural(30, 40)), [box], 16)


def test_squash_agrees_with_pillow(natural):
    image = natural(120, 160)
    ours = squash(image_tensor(image), 56).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    difference = np.abs(ours - theirs.astype(np.int64))
    assert difference.max() <= 2
    assert (difference <= 1).mean() >= 0.999


def test_normalize_by_hand():
    pixels = torch.tensor([0.0, 51.0, 255.0])[:, None, None]
    result = normalize(pixels, (0.5, 0.2, 0.0), (0.5, 0.1, 2.0))
    assert torch.allclose(result.flatten(), torch.tensor([-1.0, 0.0, 0.5]), atol=1e-7)
