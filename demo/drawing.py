"""Lines, colours and layers for the painters: curves, a pose, and the plate that a bird is painted on."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Points = np.ndarray

OUTLINE = 0.018  # width of the darker line around a part, in units of a pose


def spline(points: list, *, closed: bool = True, steps: int = 7) -> Points:
    """A smooth curve through `points` `[K, 2]` (Catmull-Rom), `steps` pieces between two of them."""
    knots = np.asarray(points, dtype=float)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    before, start, end, after = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, knots[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, arc=(0.0, 2 * math.pi)) -> Points:
    """Points of an ellipse, or of the arc between two angles (radians, y downwards)."""
    angle = np.linspace(*arc, 36)
    return rotate(np.stack([rx * np.cos(angle), ry * np.sin(angle)], 1), turn, (x, y))


def rotate(points, turn: float, place=(0.0, 0.0)) -> Points:
    """`points` `[K, 2]` turned about the origin by `turn` radians, from x towards y, then moved to `place`."""
    cos, sin = math.cos(turn), math.sin(turn)
    return np.asarray(points, dtype=float) @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(place, dtype=float)


def move(points, place) -> Points:
    """`points` `[K, 2]` moved by `place` (x, y)."""
    return np.asarray(points, dtype=float) + np.asarray(place, dtype=float)


def ribbon(points: Points, start: float, end: float) -> Points:
    """The outline of a stroke along `points` whose half width goes from `start` to `end`."""
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    width = np.linspace(start, end, len(points))[:, None]
    return np.concatenate([points + across * width, (points - across * width)[::-1]])


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor < 1) or mixed with white (factor > 1: 1.3 is 30 % white)."""
    if factor <= 1:
        return tuple(int(value * factor) for value in colour)
    return tuple(int(value + (255 - value) * (factor - 1)) for value in colour)


def vary(colour: Colour, rng: random.Random, amount: float = 12) -> Colour:
    """`colour` as one individual wears it: a little lighter or darker, a little off in each channel."""
    factor = rng.uniform(0.88, 1.08)
    return tuple(int(min(255, max(0, value * factor + rng.uniform(-amount, amount)))) for value in colour)


def pixels(points: Points) -> list[tuple[float, float]]:
    """`points` as Pillow's drawing calls want them."""
    return [(x, y) for x, y in points.tolist()]


@dataclass(frozen=True)
class Pose:
    """Where a bird sits: its centre in pixels, pixels a unit, facing (1 right, -1 left), tilt, stretch.

    A bird's own coordinates have the body's centre at the origin, x towards the head, y downwards; the body
    is about two units long.
    """

    x: float
    y: float
    unit: float
    facing: int
    tilt: float
    stretch: float

    def __call__(self, points) -> Points:
        """Bird coordinates `[K, 2]` to pixels `[K, 2]`."""
        own = np.asarray(points, dtype=float).reshape(-1, 2) * (1.0, self.stretch)
        turned = rotate(own, self.tilt) * (self.unit * self.facing, self.unit)
        return move(turned, (self.x, self.y))


class Plate:
    """A picture of one bird on nothing: its colours, and for each pixel the part that shows there.

    `part` numbers start at 1; `BODY` is bird that belongs to no mark; 0 is not bird.
    """

    BODY = 255

    def __init__(self, size: tuple[int, int], pose: Pose) -> None:
        self.size = size
        self.pose = pose
        self.image = Image.new("RGB", size)
        self.parts = Image.new("L", size)

    def fill(self, points, colour: Colour, part: int = BODY, edge: float = 0.0) -> None:
        """Paint a shape given in bird coordinates; `edge` is the width of a darker outline, in units."""
        outline = pixels(self.pose(points))
        draw = ImageDraw.Draw(self.image)
        draw.polygon(outline, fill=colour)
        if edge:
            width = max(1, round(edge * self.pose.unit))
            draw.line([*outline, outline[0]], fill=shade(colour, 0.62), width=width, joint="curve")
        ImageDraw.Draw(self.parts).polygon(outline, fill=part)

    def stroke(self, points, colour: Colour, width: float) -> None:
        """Draw a line `width` units wide inside what is painted; the part below keeps its number."""
        wide = max(1, round(width * self.pose.unit))
        ImageDraw.Draw(self.image).line(pixels(self.pose(points)), fill=colour, width=wide, joint="curve")

    def mask(self, points) -> Image.Image:
        """The shape as a mask, `L`, 255 inside."""
        mask = Image.new("L", self.size)
        ImageDraw.Draw(mask).polygon(pixels(self.pose(points)), fill=255)
        return mask

    def paste(self, layer: Image.Image, mask: Image.Image, part: int | None = None) -> None:
        """Put `layer` where `mask` is set; with `part`, those pixels now show that part."""
        self.image.paste(layer, (0, 0), mask)
        if part is not None:
            self.parts.paste(part, (0, 0, *self.size), mask)

    def relabel(self, points, old: int, new: int) -> None:
        """Give pixels of `old` inside the shape the number `new`."""
        of_old = self.parts.point([255 if value == old else 0 for value in range(256)])
        self.parts.paste(new, (0, 0, *self.size), ImageChops.multiply(of_old, self.mask(points)))
