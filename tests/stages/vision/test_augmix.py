"""AugMix: every operation against Pillow as AugMix's authors call it, and whole views against a loop over chains."""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch

from stages.vision.augmix import DRAWS, OPERATIONS, apply_operation, augmix
from stages.vision.boxes import image_rng
from stages.vision.crops import image_tensor

SIZE = 48
LEVELS = [0.1, 0.4, 1.0, 3.7, 9.9]


def by_pillow(image: PIL.Image.Image, operation: str, level: float, sign: int) -> PIL.Image.Image:
    """One operation as in AugMix's published code, at a level that has been drawn."""
    size, bilinear = image.size, PIL.Image.Resampling.BILINEAR
    shear, shift = sign * level * 0.3 / 10, sign * int(level * (size[0] / 3) / 10)
    affine = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }
    if operation in affine:
        return image.transform(size, PIL.Image.Transform.AFFINE, affine[operation], resample=bilinear)
    if operation == "rotate":
        return image.rotate(sign * int(level * 30 / 10), resample=bilinear)
    if operation == "posterize":
        return PIL.ImageOps.posterize(image, 4 - int(level * 4 / 10))
    if operation == "solarize":
        return PIL.ImageOps.solarize(image, 256 - int(level * 256 / 10))
    return getattr(PIL.ImageOps, operation)(image)


@pytest.fixture
def pictures(natural) -> np.ndarray:
    """Uint8 `[4, S, S, 3]`: two natural ones, a flat one, and one whose channels differ in range."""
    uneven = natural(SIZE, SIZE) // np.array([1, 3, 7], dtype=np.uint8) + np.array([0, 40, 100], dtype=np.uint8)
    flat = np.full((SIZE, SIZE, 3), 77, dtype=np.uint8)
    return np.stack([natural(SIZE, SIZE), natural(SIZE, SIZE)[::-1, ::-1], flat, uneven])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_operation_is_pillows_within_one_level(operation, sign, pictures):
    for level in LEVELS:
        count = len(pictures)
        images = torch.stack([image_tensor(picture) for picture in pictures])
        found = apply_operation(images, operation, np.full(count, level), np.full(count, sign))
        wanted = [by_pillow(PIL.Image.fromarray(picture), operation, level, sign) for picture in pictures]
        difference = np.abs(found.permute(0, 2, 3, 1).numpy().astype(int) - np.stack(wanted).astype(int))
        assert difference.max() <= 1, level
        assert (difference > 0).mean() < 0.01, level


def test_images_of_a_batch_keep_their_own_levels(pictures):
    images = torch.stack([image_tensor(picture) for picture in pictures])
    levels, signs = np.array([0.1, 0.9, 5.0, 9.9]), np.array([1, -1, 1, -1])
    for operation in OPERATIONS:
        together = apply_operation(images, operation, levels, signs)
        alone = [apply_operation(images[n : n + 1], operation, levels[n : n + 1], signs[n : n + 1]) for n in range(4)]
        assert torch.equal(together, torch.cat(alone))


def by_chains(picture: np.ndarray, draws: np.ndarray, severity: float) -> np.ndarray:
    """One view, chain by chain in Pillow."""
    draws = iter(draws)
    exponential = [-np.log(1 - next(draws)) for _ in range(3)]
    weights = np.array(exponential) / sum(exponential)
    own = next(draws)
    mixed = np.zeros(picture.shape)
    for weight in weights:
        image = PIL.Image.fromarray(picture)
        length = 1 + int(3 * next(draws))
        for step in range(3):
            operation, level, sign = OPERATIONS[int(9 * next(draws))], next(draws), next(draws)
            if step < length:
                image = by_pillow(image, operation, 0.1 + (severity - 0.1) * level, 1 if sign < 0.5 else -1)
        mixed += weight * np.asarray(image, dtype=float)
    return own * picture + (1 - own) * mixed


@pytest.mark.parametrize("severity", [1, 8])
def test_a_view_mixes_the_crop_with_three_chains(severity, natural):
    picture = natural(SIZE, SIZE)
    draws = image_rng(0, "a", "augmix").random((12, DRAWS))
    found = augmix(image_tensor(picture).expand(12, -1, -1, -1), draws, severity)
    assert found.dtype == torch.float32
    wanted = np.stack([by_chains(picture, row, severity) for row in draws])
    difference = np.abs(found.permute(0, 2, 3, 1).numpy() - wanted)
    # where a chain equalises or solarises, a level more or less before it can become many
    assert (difference > 1).mean() < 0.002


def test_the_ends_of_the_range_are_the_crop_itself_and_a_single_chain(natural):
    # all the weight on the crop itself: the view is the crop, whatever its chains do
    crop = image_tensor(natural(SIZE, SIZE))[None]
    draws = np.full((1, DRAWS), 0.3)
    draws[0, 3] = 1.0
    torch.testing.assert_close(augmix(crop, draws), crop.float())
    # none of it, and one chain of one rotation that takes all
    draws[0, 3], draws[0, :3] = 0.0, [1 - 1e-16, 0.0, 0.0]
    draws[0, 4:8] = [0.0, 3.5 / 9, 0.99999, 0.0]  # length 1, rotate, level just below 1: int(2.99997) degrees
    turned = PIL.Image.fromarray(natural(SIZE, SIZE)).rotate(2, resample=PIL.Image.Resampling.BILINEAR)
    difference = augmix(crop, draws)[0].permute(1, 2, 0).numpy() - np.asarray(turned, dtype=float)
    assert np.abs(difference).max() <= 1


def test_draws_of_another_shape_are_refused(natural):
    with pytest.raises(ValueError, match=r"draws must have the shape \[1, 34\], got \[1, 3\]"):
        augmix(image_tensor(natural(8, 8))[None], np.zeros((1, 3)))
    with pytest.raises(ValueError, match="'blur' is not known; it must be one of autocontrast"):
        apply_operation(image_tensor(natural(8, 8))[None], "blur", np.ones(1), np.ones(1))
