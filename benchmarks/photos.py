"""JPEG files with the statistics of photographs: cuts of two real ones, which scikit-learn ships (CC BY)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 90
LARGE = (3000, 2000)
"""Width and height of one photograph in twenty of a mixed set, as a camera takes them."""


def write_photos(folder: Path, count: int) -> Path:
    """`count` JPEG files of 500 x 375 in `folder`/photos, each another cut."""
    originals, rng = _originals(), np.random.default_rng(0)
    folder = folder / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        _cut(originals[number % 2], (500, 375), rng).save(folder / f"{number:05}.jpg", quality=QUALITY)
    return folder


def write_mixed_photos(folder: Path, count: int, distinct: int = 200) -> Path:
    """`count` JPEG files from 120 to 1600 pixels wide, one in twenty 3000 x 2000; links to `distinct` ones."""
    originals, rng = _originals(), np.random.default_rng(1)
    sources, photos = folder / "sources", folder / "photos"
    sources.mkdir(parents=True, exist_ok=True)
    photos.mkdir(parents=True, exist_ok=True)
    for number in range(distinct):
        width = int(120 * (1600 / 120) ** rng.random())
        size = LARGE if number % 20 == 10 else (width, max(1, int(width * rng.uniform(0.5, 1.5))))
        _cut(originals[number % 2], size, rng).save(sources / f"{number}.jpg", quality=QUALITY)
    for number in range(count):
        os.link(sources / f"{number % distinct}.jpg", photos / f"{number:05}.jpg")
    return photos


def _originals() -> list[Image.Image]:
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise SystemExit("the benchmarks need the test extra: pip install -e '.[test]'") from None
    return [Image.fromarray(np.asarray(image)) for image in load_sample_images().images]


def _cut(original: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random part of the size's shape, enlarged or shrunk to it."""
    width, height = size
    scale = min(original.width / width, original.height / height) * rng.uniform(0.7, 1.0)
    w, h = width * scale, height * scale
    x, y = rng.uniform(0, original.width - w), rng.uniform(0, original.height - h)
    return original.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
