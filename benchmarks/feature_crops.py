"""Feature crops against one forward pass: sixty windows of ViT-B-16's tokens through the last block."""

from __future__ import annotations

import time

import numpy as np
import open_clip
import torch

from stages.vision.boxes import feature_windows, image_rng
from stages.vision.feature_crops import FeatureCropper

IMAGES, WINDOWS = 8, 60


@torch.no_grad()
def feature_crop_overhead(pairs: int) -> list[float]:
    """Seconds of 60 feature crops an image over seconds of the whole forward pass of an image, fp32, pair by pair."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16").eval()
    cropper = FeatureCropper(model.visual)
    pixels = torch.randn(IMAGES, 3, 224, 224)
    tokens = cropper.tokens(pixels)
    windows = np.stack([_windows(cropper.grid, number) for number in range(IMAGES)])
    ratios = []
    for _ in range(pairs + 1):
        start = time.perf_counter()
        model.encode_image(pixels)
        middle = time.perf_counter()
        cropper.crop_features(tokens, windows)
        ratios.append((time.perf_counter() - middle) / (middle - start))
    return ratios[1:]  # the first pair warms up


def _windows(grid: int, number: int) -> np.ndarray:
    rng = image_rng(0, str(number), "feature")
    cells = (rng.random((WINDOWS, 2)) * grid).astype(int)
    sides = {"min_side": 0.5, "max_side": 0.9}
    size = {"guide_grid": grid, "grid": grid, "width": 224, "height": 224}
    return feature_windows(cells, **size, **sides, frame="corrected", rng=rng)
