"""A photograph as the encoder wants it: its size, and pixels for every table, no larger than that table's crops need.

It is decoded once. A table's pixels depend on the photograph and that table's own settings alone, so its features do
not change with what else is computed in the same pass.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stages.settings import ViewSettings
from stages.views import smallest_share
from stages.vision.decode import UnreadableImage, decode_image, reduce_image, reduction

LARGEST_GUIDE = 518
"""Side in pixels of the largest input of the guides that people use (DINOv2); they see the pixels of `whole`."""


@dataclass(frozen=True)
class Photograph:
    """Width and height as it was taken, RGB pixels uint8 [h, w, 3] by table name, and the seconds decoding took.

    `pixels["whole"]` is always there; tables that need the same size share an array. `factors` says by how much each
    was reduced, 1 for not at all.
    """

    width: int
    height: int
    pixels: Mapping[str, np.ndarray]
    factors: Mapping[str, int]
    seconds: float = 0.0


def decode_photograph(data: bytes, views: Mapping[str, ViewSettings], size: int, *, full: bool) -> Photograph:
    """Decode an image file for `whole` and these view sets, by name.

    `size` is the side of the encoder's input; with `full` nothing is reduced. Raises `UnreadableImage`.
    """
    start = time.perf_counter()
    try:
        return photograph_of(decode_image(data), views, size, full=full, start=start)
    except MemoryError:
        raise UnreadableImage("not enough memory to reduce it") from None


def photograph_of(
    pixels: np.ndarray, views: Mapping[str, ViewSettings], size: int, *, full: bool, start: float | None = None
) -> Photograph:
    """The same for decoded pixels uint8 [H, W, 3]; seconds count from `start` (`time.perf_counter`), 0 without."""
    height, width = pixels.shape[:2]
    shorter = min(width, height)
    factors = {name: reduction(width, height, smallest_share(view) * shorter, size) for name, view in views.items()}
    factors["whole"] = reduction(width, height, shorter, max(size, LARGEST_GUIDE))
    if full:
        factors = dict.fromkeys(factors, 1)
    levels = {factor: reduce_image(pixels, factor) for factor in set(factors.values())}
    seconds = 0.0 if start is None else time.perf_counter() - start
    return Photograph(width, height, {name: levels[factor] for name, factor in factors.items()}, factors, seconds)
