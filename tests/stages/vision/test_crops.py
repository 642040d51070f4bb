"""Crops against Pillow, the slow and obvious way: crop, resize the shorter side, centre-crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from stages.vision import crops as module
from stages.vision.crops import image_tensor, normalize, preprocess_whole, resize_crops


def by_pillow(image: np.ndarray, boxes: list[list[int]], size: int) -> np.ndarray:
    steps = transforms.Compose(
        [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    )
    pictures = [steps(Image.fromarray(image).crop(tuple(box))) for box in boxes]
    return np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2).astype(np.int64)


def by_matrices(image: torch.Tensor, boxes: list[list[int]], size: int) -> torch.Tensor:
    """What other devices than the CPU compute, on the CPU."""
    return module._resample(image, np.array(boxes), size)


def test_thin_boxes_agree_with_pillow_and_cost_no_more_than_what_is_kept(natural):
    image = natural(300, 40)
    boxes = [[3, 4, 4, 5], [0, 0, 1, 300], [0, 7, 40, 8], [2, 0, 4, 300], [0, 0, 5, 40]]
    difference = np.abs(resize_crops(image_tensor(image), boxes, 16).numpy() - by_pillow(image, boxes, 16))
    assert difference.max() <= 2
    long = image_tensor(np.full((1, 200_000, 3), 77, dtype=np.uint8))  # 600 MB if it were enlarged whole
    assert (resize_crops(long, [[0, 0, 200_000, 1]], 32) == 77).all()


def test_a_strip_of_any_length_costs_what_its_middle_costs(natural):
    """Of 20 million pixels in a row CenterCrop keeps one; by whole rows of weights it would take 36 GB."""
    strip = np.zeros((1, 20_000_000, 3), dtype=np.uint8)
    strip[0, 10_000_000 - 4 : 10_000_000 + 4] = 200
    assert (resize_crops(image_tensor(strip), [[0, 0, 20_000_000, 1]], 224) == 200).all()
    image = np.concatenate([natural(20, 500)] * 12, axis=1)
    boxes = [[0, 0, 6000, 20], [17, 3, 5503, 14], [4000, 0, 6000, 7], [1, 1, 4, 19]]
    difference = np.abs(by_matrices(image_tensor(image), boxes, 16).numpy() - by_pillow(image, boxes, 16))
    assert difference.max() <= 2
    assert by_matrices(image_tensor(image), np.empty((0, 4), int), 16).shape == (0, 3, 16, 16)


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


def test_normalize_by_hand():
    pixels = torch.tensor([0.0, 51.0, 255.0])[:, None, None]
    result = normalize(pixels, (0.5, 0.2, 0.0), (0.5, 0.1, 2.0))
    assert torch.allclose(result.flatten(), torch.tensor([-1.0, 0.0, 0.5]), atol=1e-7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalize_keeps_the_layout_and_overwrites_floats_alone(layout):
    pixels = torch.randint(0, 256, (2, 3, 5, 4)).contiguous(memory_format=layout)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    expected = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    result = normalize(pixels, mean, std)
    assert pixels.max() > 3, "whole numbers are left as they are"
    assert torch.allclose(result, expected, atol=2e-6)
    assert torch.equal(normalize(pixels[0], mean, std), result[0])
    floats = pixels.float()
    in_place = normalize(floats, mean, std)
    assert in_place.data_ptr() == floats.data_ptr()
    assert in_place.is_contiguous(memory_format=layout)
    assert torch.equal(in_place, result)


def test_crops_lie_as_pictures_do_in_the_layout_that_encoders_read_fastest(natural):
    image = image_tensor(natural(40, 50))
    crops = resize_crops(image, [[0, 0, 50, 40], [3, 4, 30, 30]], 16)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(preprocess_whole(image, 16), crops[0])
