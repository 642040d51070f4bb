"""One rendered photograph: a bird of a species somewhere in its scenery, with the box of every part.

The picture depends on the species and the seed alone. It is drawn at three times its size and reduced, so
that edges are smooth; light and shadow are added at the final size.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.birds import draw_bird, foot_height
from demo.drawing import Plate, Pose, move
from demo.marks import PART_NUMBER, Species
from demo.scenery import draw_front_leaf, draw_near_clutter, draw_perch, paint_background

Box = tuple[float, float, float, float]

SUPERSAMPLING = 3
# How wide birds are, tail to beak, as a range of fractions of the picture. The model learns from birds that
# are close; the data set shows them further away, where their small marks vanish at the model's input size.
CLOSE = (0.36, 0.66)
FAR = (0.2, 0.4)


def render(
    species: Species, seed: int | str, size: int = 256, width: tuple[float, float] = CLOSE
) -> tuple[Image.Image, dict[str, Box]]:
    """A picture of `species`, RGB, `size` x `size`, and for each part its box.

    `width` is the range that the bird's width is drawn from, a fraction of the picture: `CLOSE`, `FAR`.
    Boxes are (left, top, right, bottom) as fractions of the picture, 0 to 1, and hold the pixels where the
    part really shows: what another part hides does not count.
    """
    rng = random.Random(f"{seed} {[mark.phrase for mark in species.marks]}")
    large = size * SUPERSAMPLING
    pose, extent = _pose(large, species, width, rng)

    # The bird gets a plate of its own, no larger than it and its shadow need, at a whole final pixel.
    space = 0.5 * pose.unit * np.array([[-1], [1]])
    around = np.clip(extent + space, 0, large)
    (left, top), (right, bottom) = (around // SUPERSAMPLING).astype(int).tolist()
    there = replace(pose, x=pose.x - left * SUPERSAMPLING, y=pose.y - top * SUPERSAMPLING)
    plate = Plate(((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING), there)
    draw_bird(plate, species, rng)
    parts = np.asarray(plate.parts)[1::SUPERSAMPLING, 1::SUPERSAMPLING]

    picture = _scene(large, pose, foot_height(species), rng).reduce(SUPERSAMPLING)
    picture.paste(_set_in(picture.crop((left, top, right, bottom)), plate), (left, top))
    picture = _add_front(picture, extent / SUPERSAMPLING, rng)
    return _expose(picture, rng), part_boxes(parts, (left, top), size)


def part_boxes(parts: np.ndarray, corner: tuple[int, int], size: int) -> dict[str, Box]:
    """The box of each part, from the map `[h, w]` of part numbers whose corner lies at `corner` in a picture
    of `size` pixels a side.

    Half a percent of a part's pixels may stick out on each side, so that a stray one does not stretch the
    box. A part that shows nowhere is a ValueError: a pose must leave every part visible.
    """
    boxes = {}
    for part, number in PART_NUMBER.items():
        shown = parts == number
        total = shown.sum()
        if not total:
            raise ValueError(f"the {part} shows nowhere; a pose must leave every part visible")
        edges = []
        for axis, start in zip((0, 1), corner, strict=True):
            share = np.cumsum(shown.sum(axis)) / total
            edges.append([start + np.searchsorted(share, 0.005), start + np.searchsorted(share, 0.995) + 1])
        (left, right), (top, bottom) = edges
        boxes[part] = tuple(float(edge) / size for edge in (left, top, right, bottom))
    return boxes


def _pose(size: int, species: Species, width, rng: random.Random) -> tuple[Pose, np.ndarray]:
    """A random place, size, tilt and direction that keep the whole bird inside the picture, and the corners
    `[2, 2]` of the box that holds it, in pixels."""
    unit = rng.uniform(*width) * size / 3.6
    facing, tilt, stretch = rng.choice((-1, 1)), math.radians(rng.uniform(-16, 16)), rng.uniform(0.92, 1.1)
    at_origin = Pose(0, 0, unit, facing, tilt, stretch)
    tail = {"long": -2.15, "short": -1.42, "forked": -1.95}[species.mark("tail").shape]
    beak = {"long": 2.15, "short": 1.76, "hooked": 1.86}[species.mark("beak").shape]
    crest = -1.74 if species.mark("crown").shape == "spiky" else -1.3
    toes = foot_height(species) + 0.15
    corners = [(tail, -0.4), (tail, 0.8), (beak, -1.0), (beak, -0.3), (0.5, crest), (-0.3, toes), (0.5, toes)]
    reach = at_origin(corners)
    margin = 0.01 * size
    low, high = margin - reach.min(0), size - margin - reach.max(0)
    x, y = (rng.uniform(a, b) if a < b else (a + b) / 2 for a, b in zip(low, high, strict=True))
    pose = replace(at_origin, x=x, y=y)
    return pose, move([reach.min(0), reach.max(0)], (x, y))


def _scene(size: int, pose: Pose, ground: float, rng: random.Random) -> Image.Image:
    """Everything behind the bird: blurred depth, sharp clutter, and the branch under its toes."""
    scene = paint_background(size // SUPERSAMPLING, rng).resize((size, size), Image.BICUBIC)
    draw = ImageDraw.Draw(scene, "RGBA")
    draw_near_clutter(draw, size, rng)
    foot = pose([(0.1, ground + 0.03)])[0]
    draw_perch(draw, size, foot, rng.uniform(-0.2, 0.2), pose.unit * rng.uniform(0.07, 0.15), rng)
    return scene


def _set_in(scene: Image.Image, plate: Plate) -> Image.Image:
    """The bird, reduced, with volume from light above, set into `scene` (same place) with a soft shadow."""
    alpha = plate.parts.point([0] + [255] * 255).reduce(SUPERSAMPLING)
    # Reduced colours are already multiplied by their cover, since the plate is black where no bird is.
    bird = np.asarray(plate.image.reduce(SUPERSAMPLING), np.float32)
    unit = plate.pose.unit / SUPERSAMPLING
    cover = np.asarray(alpha, np.float32)[..., None] / 255

    wing = plate.parts.point([255 if value == PART_NUMBER["wings"] else 0 for value in range(256)])
    slope = _slope(alpha, unit * 0.16) + 0.45 * _slope(wing.reduce(SUPERSAMPLING), unit * 0.1)
    light = np.clip(1.0 + 0.8 * slope * unit, 0.7, 1.18)[..., None]
    glow = np.clip(light - 1, 0, None)
    bird = bird * np.minimum(light, 1) + glow * (255 * cover - bird)

    fallen = np.asarray(alpha.filter(ImageFilter.GaussianBlur(unit * 0.16)), np.float32)[..., None] / 255
    fallen = np.roll(fallen, max(1, round(unit * 0.12)), axis=0)
    under = np.asarray(scene, np.float32) * (1 - 0.3 * fallen)
    return Image.fromarray(np.clip(under * (1 - cover) + bird, 0, 255).astype(np.uint8))


def _slope(mask: Image.Image, radius: float) -> np.ndarray:
    """How fast the blurred mask grows downwards, a pixel: positive on upper edges, negative on lower ones."""
    height = np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    return np.gradient(height, axis=0)


def _add_front(picture: Image.Image, extent: np.ndarray, rng: random.Random) -> Image.Image:
    """Every second picture: a few leaves close to the camera, out of focus, never over the bird."""
    if rng.random() < 0.5:
        return picture
    size = picture.width
    front = Image.new("RGBA", (2 * size, 2 * size))
    draw = ImageDraw.Draw(front)
    for _ in range(rng.randint(1, 3)):
        draw_front_leaf(draw, 2 * size, (2 * extent).ravel(), rng)
    front = front.reduce(2).filter(ImageFilter.GaussianBlur(size * 0.003))
    return Image.alpha_composite(picture.convert("RGBA"), front).convert("RGB")


def _expose(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The camera's part: exposure, white balance, a little grain."""
    noise = np.random.default_rng(rng.getrandbits(32))
    pixels = np.asarray(picture, np.float32) * np.float32(rng.uniform(0.86, 1.1))
    pixels = pixels * noise.uniform(0.96, 1.04, 3).astype(np.float32)
    pixels += noise.standard_normal(pixels.shape, dtype=np.float32) * 2.5
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
