"""Training data: a pool of rendered pictures, and batches of crops with the sentences that fit them.

Everything is drawn from seeds: picture k of the pool and batch k of a process are the same in every run.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from demo.captions import INPUT_SIZE, PHRASES, caption, choose_phrases, draw_crop, phrases_of, sight
from demo.marks import PARTS, Species
from demo.render import render
from demo.species import training_species


@dataclass(frozen=True)
class Pool:
    """Rendered pictures `[n, 256, 256, 3]` uint8, boxes `[n, 8, 4]` of their parts, and their birds."""

    pictures: np.ndarray
    boxes: np.ndarray
    species: list[Species]


@dataclass(frozen=True)
class Batch:
    """`images` `[n, 64, 64, 3]` float in 0..1, `captions` (n sentences), and how n captions and then all
    `PHRASES` relate to the images, `[n, n + P]`: `fits`, and `unsure`, which the loss leaves out."""

    images: np.ndarray
    captions: list[str]
    fits: np.ndarray
    unsure: np.ndarray


def render_pool(folder: Path, count: int, seed: int, workers: int, report: Callable[[int], None]) -> None:
    """Render `count` training pictures into `folder`; `report` hears how many are done."""
    pictures = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, (count, 256, 256, 3))
    boxes = np.zeros((count, len(PARTS), 4), np.float32)
    birds = ((species, seed * 1_000_003 + number) for number, species in enumerate(_species(count, seed)))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, (picture, its_boxes) in enumerate(pool.imap(_render_one, birds, chunksize=16)):
            pictures[done], boxes[done] = picture, its_boxes
            if (done + 1) % 500 == 0:
                report(done + 1)
    pictures.flush()
    np.save(folder / "boxes.npy", boxes)


def open_pool(folder: Path, seed: int) -> Pool:
    """What `render_pool` left in `folder`, the pictures mapped from disk."""
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    return Pool(pictures, np.load(folder / "boxes.npy"), _species(len(pictures), seed))


def _species(count: int, seed: int) -> list[Species]:
    return list(islice(training_species(seed), count))


def _render_one(bird: tuple[Species, int]) -> tuple[np.ndarray, np.ndarray]:
    picture, boxes = render(*bird)
    return np.asarray(picture), np.array([boxes[part] for part in PARTS], np.float32)


def draw_batch(pool: Pool, size: int, key: str) -> Batch:
    """The batch named by `key`: `size` random crops, augmented, each with a caption."""
    rng = random.Random(key)
    images = np.empty((size, INPUT_SIZE, INPUT_SIZE, 3), np.float32)
    shown = np.zeros((size, len(PHRASES)), bool)
    doubtful = np.zeros((size, len(PHRASES)), bool)
    said = []
    for row in range(size):
        bird = rng.randrange(len(pool.species))
        boxes, marks = pool.boxes[bird], pool.species[bird].marks
        box = draw_crop(boxes, rng)
        seen, unsure, side = sight(boxes, box)
        images[row] = _crop(pool.pictures[bird], box, rng)
        for part, mark in enumerate(marks):
            places = list(phrases_of(mark))
            shown[row, places] = seen[part]
            doubtful[row, places] = unsure[part]
        said.append(choose_phrases(marks, seen, side, rng))
    fits, unsure = _relate(said, shown, doubtful)
    noise = np.random.default_rng(rng.getrandbits(63))
    images *= noise.uniform(0.8, 1.2, (size, 1, 1, 1)).astype(np.float32)
    images += noise.normal(0, 0.03, (size, 1, 1, 3)).astype(np.float32)
    return Batch(images, [caption(phrases, rng) for phrases in said], fits, unsure)


def _crop(picture: np.ndarray, box, rng: random.Random) -> np.ndarray:
    side = len(picture)
    # Cut out first, with a margin for the filter: only that part is read from disk.
    left, top = (max(0, int(edge * side) - 8) for edge in box[:2])
    right, bottom = (min(side, int(edge * side) + 9) for edge in box[2:])
    cut = Image.fromarray(picture[top:bottom, left:right])
    inner = (box[0] * side - left, box[1] * side - top, box[2] * side - left, box[3] * side - top)
    crop = np.asarray(cut.resize((INPUT_SIZE, INPUT_SIZE), Image.BICUBIC, inner), np.float32) / 255
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _relate(said, shown: np.ndarray, doubtful: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A caption fits an image that shows all it says; it is unsure where what is missing is only doubtful. A
    caption that speaks of no bird fits the images that were given such a caption."""
    size = len(said)
    fits, unsure = np.zeros((size, size), bool), np.zeros((size, size), bool)
    without = np.array([not phrases for phrases in said])
    for column, phrases in enumerate(said):
        if phrases:
            places = list(phrases)
            fits[:, column] = shown[:, places].all(1)
            unsure[:, column] = (shown | doubtful)[:, places].all(1) & ~fits[:, column]
        else:
            fits[:, column] = without
    return np.concatenate([fits, shown], 1), np.concatenate([unsure, doubtful], 1)
