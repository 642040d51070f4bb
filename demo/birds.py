"""Drawing one bird: smooth outlines, patterned plumage, and a record of which pixel shows which part.

All coordinates are the bird's own (`drawing.Pose`): body centre at the origin, x towards the head, y
downwards, the body two units long. Parts are painted from far to near, so later ones hide earlier ones.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from demo.drawing import OUTLINE, Colour, Plate, ellipse, move, pixels, ribbon, rotate, shade, spline, vary
from demo.heads import draw_head
from demo.marks import COLOURS, PART_NUMBER, Mark, Species

# The ink of a pattern: pale on dark plumage, dark on pale plumage.
_DARK_INK = {"white": (58, 58, 68), "yellow": (74, 52, 20), "pink": (96, 32, 64), "orange": (78, 34, 10)}
_PALE_INK = (250, 249, 240)


@dataclass(frozen=True)
class _Build:
    """What differs between two birds of one species: where the head is, how parts are turned, the tints."""

    head: tuple[float, float]
    beak_turn: float
    tail_turn: float
    wing_turn: float
    stance: float
    colours: dict[str, Colour]


def foot_height(species: Species) -> float:
    """How far below the body's centre the toes are, in units."""
    return 1.38 if species.mark("legs").shape == "long" else 0.97


def draw_bird(plate: Plate, species: Species, rng: random.Random) -> None:
    """Paint one bird of `species` on `plate`."""
    build = _Build(
        head=(0.96 + rng.uniform(-0.1, 0.08), -0.74 + rng.uniform(-0.1, 0.1)),
        beak_turn=rng.uniform(-0.25, 0.25),
        tail_turn=rng.uniform(-0.2, 0.2),
        wing_turn=rng.uniform(-0.1, 0.1),
        stance=rng.uniform(-0.05, 0.08),
        colours={mark.part: vary(COLOURS[mark.colour], rng) for mark in species.marks},
    )
    _tail(plate, species.mark("tail"), build)
    _legs(plate, species, build)
    _body(plate, build)
    _breast(plate, species.mark("breast"), build, rng)
    _wing(plate, species.mark("wings"), build, rng)
    draw_head(plate, species, build.head, build.beak_turn, build.colours)


def _ink(mark: Mark, rng: random.Random) -> Colour:
    return vary(_DARK_INK.get(mark.colour, _PALE_INK), rng, 6)


def _tail(plate: Plate, mark: Mark, build: _Build) -> None:
    colour = build.colours["tail"]
    feathers = {
        "long": [(-1.22, 0.34, 0.16), (-1.3, 0.22, 0.15), (-1.22, 0.1, 0.14)],
        "short": [(-0.5, 0.3, 0.2), (-0.56, 0.1, 0.2), (-0.5, -0.08, 0.18)],
        "forked": [(-1.02, 0.58, 0.15), (-0.62, 0.24, 0.13), (-0.62, 0.02, 0.13), (-1.08, -0.32, 0.15)],
    }[mark.shape]
    for order, (x, y, half) in enumerate(feathers):
        length = math.hypot(x, y)
        blade = [(0.2, -0.12), (-0.3 * length, -half * 0.8), (-0.85 * length, -half), (-length, -half * 0.1)]
        blade += [(-0.9 * length, half * 0.8), (-0.3 * length, half * 0.7), (0.2, 0.12)]
        turn = build.tail_turn - math.atan2(y, -x)
        place = (-0.8, 0.14)
        tone = shade(colour, (0.86, 1.0, 0.94, 1.04)[order])
        plate.fill(rotate(spline(blade), turn, place), tone, PART_NUMBER["tail"], OUTLINE)
        plate.stroke(rotate([(0.1, 0), (-0.92 * length, 0)], turn, place), shade(colour, 0.72), 0.016)


def _legs(plate: Plate, species: Species, build: _Build) -> None:
    colour = build.colours["legs"]
    ground = foot_height(species)
    for hip, tone in ((-0.14, 0.84), (0.2, 1.0)):
        foot = hip + build.stance + 0.02
        own = shade(colour, tone)
        knee = (hip - 0.05, 0.45 + (ground - 0.45) * 0.42)
        shank = spline([(hip + 0.04, 0.45), knee, (foot, ground)], closed=False)
        for toe in ((0.27, 0.05), (0.19, 0.11), (-0.17, 0.07)):
            claw = [(0.0, -0.02), (toe[0] * 0.6, -0.04), toe]
            claw = ribbon(move(spline(claw, closed=False), (foot, ground)), 0.05, 0.022)
            plate.fill(claw, own, PART_NUMBER["legs"])
        plate.fill(ribbon(shank, 0.065, 0.052), own, PART_NUMBER["legs"])
        for share in (0.55, 0.7, 0.85):
            middle = np.array(knee) * (1 - share) + np.array((foot, ground)) * share
            plate.stroke(move([(-0.05, 0.01), (0.05, -0.01)], middle), shade(own, 0.75), 0.014)


def _trunk(build: _Build) -> np.ndarray:
    x, y = build.head
    back = [(-1.02, 0.1), (-0.62, -0.22), (-0.1, -0.45), (0.32, -0.62)]
    head = [(x - 0.36, y - 0.02), (x + 0.1, y - 0.2), (x + 0.32, y + 0.2)]
    belly = [(1.06, -0.22), (1.02, 0.12), (0.72, 0.46), (0.2, 0.64), (-0.35, 0.54), (-0.8, 0.36)]
    return spline([*back, *head, *belly])


def _body(plate: Plate, build: _Build) -> None:
    """The trunk in the colour of the back; only its upper side counts as the back."""
    trunk = _trunk(build)
    plate.fill(trunk, build.colours["back"], edge=OUTLINE)
    upper = [(-0.95, -0.7), (0.62, -1.1), (0.62, -0.42), (0.35, -0.2), (-0.6, 0.1), (-0.95, 0.1)]
    plate.relabel(upper, Plate.BODY, PART_NUMBER["back"])


def _breast(plate: Plate, mark: Mark, build: _Build, rng: random.Random) -> None:
    """Throat, breast and belly: the lower front of the trunk. The belly behind the legs is not counted."""
    x, y = build.head
    colour = build.colours["breast"]
    front = [(x + 0.02, y + 0.3), (0.62, -0.32), (0.46, 0.0), (0.1, 0.3), (-0.5, 0.4), (-0.95, 0.3)]
    region = np.concatenate([spline(front, closed=False), [(-0.95, 1.0), (1.5, 1.0), (1.5, y + 0.25)]])
    mask = ImageChops.multiply(plate.mask(_trunk(build)), plate.mask(region))
    layer = Image.new("RGB", plate.size, colour)
    draw = ImageDraw.Draw(layer)
    pen = plate.pose
    if mark.shape == "striped":
        ink = _ink(mark, rng)
        for start in np.arange(-0.85, 1.35, 0.2):
            stripe = [(start - 0.06, -0.7), (start, -0.1), (start + 0.1, 0.35), (start + 0.12, 0.9)]
            draw.polygon(pixels(pen(ribbon(spline(stripe, closed=False), 0.042, 0.03))), fill=ink)
    elif mark.shape == "spotted":
        _spots(draw, pen, _ink(mark, rng), (-0.85, 1.25), (-0.65, 0.75), 0.06)
    else:
        for row, height in enumerate(np.arange(-0.5, 0.7, 0.16)):
            for start in np.arange(-0.8, 1.3, 0.24):
                tuft = ellipse(start + 0.12 * (row % 2), height, 0.09, 0.06, 0.3, (0.5, 2.4))
                draw.line(pixels(pen(tuft)), fill=shade(colour, 0.86), width=max(1, round(0.014 * pen.unit)))
    plate.paste(layer, mask, Plate.BODY)
    counted = plate.mask([(-0.25, 1.2), (-0.25, 0.1), (0.5, -1.0), (1.6, -1.0), (1.6, 1.2)])
    plate.parts.paste(PART_NUMBER["breast"], (0, 0, *plate.size), ImageChops.multiply(mask, counted))


def _spots(draw: ImageDraw.ImageDraw, pen, ink: Colour, across, down, radius: float) -> None:
    """Staggered rows of spots, in bird coordinates."""
    for column, x in enumerate(np.arange(*across, 0.19)):
        for y in np.arange(*down, 0.21):
            spot = ellipse(x, y + 0.105 * (column % 2), radius, radius * 1.1)
            draw.polygon(pixels(pen(spot)), fill=ink)


_WING = [(0.46, -0.14), (0.34, -0.34), (-0.05, -0.36), (-0.55, -0.18), (-1.0, 0.1), (-1.26, 0.32)]
_WING += [(-0.95, 0.36), (-0.45, 0.38), (0.05, 0.28), (0.36, 0.1)]


def _wing(plate: Plate, mark: Mark, build: _Build, rng: random.Random) -> None:
    """The folded wing: long flight feathers below, small coverts above, the pattern over both."""
    colour = build.colours["wings"]
    pen = plate.pose

    def turned(points):
        return rotate(points, build.wing_turn)

    outline = turned(spline(_WING))
    mask = plate.mask(outline)
    layer = Image.new("RGB", plate.size, colour)
    draw = ImageDraw.Draw(layer)
    fine = max(1, round(0.016 * pen.unit))
    for order in range(6):
        low = 0.36 - 0.085 * order
        feather = [(0.1, low - 0.2), (-0.4, low - 0.02), (-0.95 + 0.05 * order, low + 0.02)]
        feather += [(-1.35 + 0.12 * order, low + 0.02)]
        edge = pixels(pen(turned(spline(feather, closed=False))))
        draw.line(edge, fill=shade(colour, 0.74), width=fine)
    coverts = [(0.5, -0.1), (0.35, -0.4), (-0.2, -0.4), (-0.45, -0.12), (-0.2, 0.1), (0.3, 0.16)]
    draw.polygon(pixels(pen(turned(spline(coverts)))), fill=shade(colour, 1.05))
    for row, x in enumerate((-0.3, -0.08, 0.14)):
        for y in np.arange(-0.34, 0.2, 0.13):
            scale = turned(ellipse(x, y + 0.06 * (row % 2), 0.1, 0.075, 0.2, (1.7, 4.6)))
            draw.line(pixels(pen(scale)), fill=shade(colour, 0.8), width=fine)
    if mark.shape == "barred":
        ink = _ink(mark, rng)
        for start in np.arange(-1.1, 0.5, 0.28):
            bar = turned([(start + 0.1, -0.5), (start + 0.02, 0.0), (start - 0.1, 0.5)])
            draw.polygon(pixels(pen(ribbon(spline(bar, closed=False), 0.058, 0.05))), fill=ink)
    elif mark.shape == "spotted":
        _spots(draw, pen, _ink(mark, rng), (-1.2, 0.5), (-0.45, 0.45), 0.062)
    plate.paste(layer, mask, PART_NUMBER["wings"])
    plate.stroke(np.concatenate([outline, outline[:1]]), shade(colour, 0.58), OUTLINE * 1.3)
