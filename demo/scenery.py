"""What is behind and around the birds: light, blurred foliage, a branch to sit on, leaves, berries, flowers.

The clutter wears the colours of the marks, so that a colour in the picture says little until it is seen
where it belongs. Depth is three layers: far (heavily blurred), middle (softly blurred), near (sharp).
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.drawing import Colour, ellipse, move, pixels, ribbon, rotate, shade, spline, vary
from demo.marks import COLOURS

_AIR = [(152, 190, 220), (190, 212, 216), (126, 156, 112), (172, 178, 140), (204, 194, 162), (104, 134, 102)]
_AIR += [(184, 164, 142), (142, 172, 160), (216, 216, 204), (94, 116, 92), (206, 186, 190), (120, 140, 160)]
_LEAVES = [(62, 122, 52), (94, 146, 62), (44, 96, 52), (132, 152, 70), (152, 112, 60), (78, 134, 88)]
_BARK = [(104, 78, 54), (86, 68, 54), (122, 98, 72), (96, 84, 74)]


def paint_background(size: int, rng: random.Random) -> Image.Image:
    """Light and the blurred layers of depth, `size` x `size`, before anything sharp is drawn."""
    quarter, half = size // 4, size // 2
    picture = _light(quarter, rng)
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(rng.randint(3, 9)):
        _bokeh(draw, quarter, rng)
    _clutter(draw, quarter, rng, rng.randint(4, 12), scale=1.5)
    picture = picture.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.006, 0.014)))
    picture = picture.resize((half, half), Image.BICUBIC)
    draw = ImageDraw.Draw(picture, "RGBA")
    _clutter(draw, half, rng, rng.randint(3, 10), scale=1.15)
    picture = picture.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.0028, 0.006)))
    return picture.resize((size, size), Image.BICUBIC)


def draw_perch(draw: ImageDraw.ImageDraw, size: int, foot, slope: float, thickness: float, rng) -> None:
    """A branch right through the picture whose upper edge passes through `foot` (pixels)."""
    bark = vary(rng.choice(_BARK), rng)
    reach = np.linspace(-1.3, 1.3, 14)
    bow = rng.uniform(-0.05, 0.05)
    along = np.stack([foot[0] + size * reach, foot[1] + size * (slope * reach + bow * reach**2)], 1)
    along += (0, thickness)
    knots = np.array([[0, rng.gauss(0, 0.05) * thickness] for _ in along])
    thick, thin = thickness * rng.uniform(1.05, 1.4), thickness * rng.uniform(0.65, 1.0)
    middle = len(along) // 2
    if rng.random() < 0.5:
        thick, thin = thin, thick
    outline = ribbon(along + knots, thick, thin)
    draw.polygon(pixels(outline), fill=bark)
    span = max(1, round(thickness * 0.3))
    draw.line(pixels(move(along, (0, thickness * 0.62))), fill=shade(bark, 0.72), width=span * 2)
    draw.line(pixels(move(along, (0, -thickness * 0.62))), fill=shade(bark, 1.22), width=span)
    for _ in range(16):
        x = rng.uniform(-0.6, 0.6)
        y = foot[1] + size * (slope * x + bow * x * x) + thickness * rng.uniform(0.4, 1.5)
        x = foot[0] + size * x
        long = size * rng.uniform(0.01, 0.035)
        draw.line([(x, y), (x + long, y + slope * long)], fill=shade(bark, 0.8), width=max(1, span // 2))
    for _ in range(rng.randint(0, 3)):
        place = move(along[middle], (size * rng.uniform(0.2, 0.6) * rng.choice((-1, 1)), 0))
        place[1] = foot[1] + slope * (place[0] - foot[0]) + thickness
        _spray(draw, size, tuple(place), rng, rng.uniform(0.06, 0.11))


def draw_near_clutter(draw: ImageDraw.ImageDraw, size: int, rng: random.Random) -> None:
    """Sharp leaves, berries, flowers and twigs, some of them at the bird's own depth behind it."""
    _clutter(draw, size, rng, rng.randint(3, 10), scale=1.0)


def draw_front_leaf(draw: ImageDraw.ImageDraw, size: int, keep_clear, rng: random.Random) -> None:
    """A leaf in front of everything, left out if it would reach into the box `keep_clear` (pixels)."""
    x, y, length = rng.uniform(0, size), rng.uniform(0, size), size * rng.uniform(0.08, 0.15)
    left, top, right, bottom = keep_clear
    if left - length < x < right + length and top - length < y < bottom + length:
        return
    _leaf(draw, x, y, length, rng.uniform(0, 2 * math.pi), vary(rng.choice(_LEAVES), rng, 18), rng)


def _light(size: int, rng: random.Random) -> Image.Image:
    """Two colours of air melting into each other, soft clouds of tone, and light falling from above."""
    noise = np.random.default_rng(rng.getrandbits(32))
    first, second = (np.array(vary(rng.choice(_AIR), rng, 16), float) for _ in range(2))
    down, right = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j][..., None]
    turn = rng.uniform(0, 1)
    mix = down * turn + right * (1 - turn)
    tone = noise.normal(0, 11, (6, 6, 1)) + noise.normal(0, 4, (6, 6, 3))
    tone = np.clip(tone + 128, 0, 255).astype(np.uint8)
    clouds = np.asarray(Image.fromarray(tone).resize((size, size), Image.BICUBIC), float) - 128
    sun = np.exp(-(((right - rng.uniform(0, 1)) / 0.5) ** 2) - ((down - rng.uniform(-0.2, 0.2)) / 0.6) ** 2)
    picture = first * (1 - mix) + second * mix + clouds + 34 * sun - 18 * down
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _bokeh(draw: ImageDraw.ImageDraw, size: int, rng: random.Random) -> None:
    x, y, radius = rng.uniform(0, size), rng.uniform(0, size), size * rng.uniform(0.03, 0.09)
    colour = shade(rng.choice(_LEAVES + list(COLOURS.values())), rng.uniform(1.1, 1.6))
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(*colour, rng.randint(50, 120)))


def _clutter(draw: ImageDraw.ImageDraw, size: int, rng: random.Random, count: int, scale: float) -> None:
    for _ in range(count):
        place = (rng.uniform(0, size), rng.uniform(0, size))
        kind = rng.random()
        if kind < 0.55:
            _spray(draw, size, place, rng, rng.uniform(0.05, 0.13) * scale)
        elif kind < 0.75:
            _berries(draw, size * scale, place, rng)
        elif kind < 0.9:
            _flower(draw, size * scale, place, rng)
        else:
            _twig(draw, size, place, rng)


def _spray(draw: ImageDraw.ImageDraw, size: int, place, rng: random.Random, scale: float) -> None:
    """One to five leaves growing from one stem."""
    colour = vary(rng.choice(_LEAVES), rng, 18)
    length = size * scale
    heading = rng.uniform(0, 2 * math.pi)
    count = rng.randint(1, 5)
    tip = np.array(place) + rotate([(length * 0.5 * (count - 1), 0)], heading)[0]
    draw.line(pixels(np.array([place, tip])), fill=shade(colour, 0.7), width=max(1, round(length * 0.05)))
    for order in range(count):
        share = order / max(1, count - 1)
        x, y = np.array(place) * (1 - share) + tip * share
        side = (-1, 1)[order % 2] * rng.uniform(0.5, 0.9) if order < count - 1 else 0.0
        _leaf(draw, x, y, length * rng.uniform(0.75, 1.1), heading + side, vary(colour, rng, 6), rng)


def _leaf(draw: ImageDraw.ImageDraw, x, y, length, heading, colour: Colour, rng: random.Random) -> None:
    """A pointed leaf: shadow, a lit and a shaded half, midrib and side veins."""
    wide = length * rng.uniform(0.2, 0.3)
    edge = [(0, 0), (0.18, 0.7), (0.45, 1.0), (0.78, 0.55), (1, 0)]
    half = spline([(a * length, b * wide) for a, b in edge], closed=False, steps=4)
    rib = length * np.linspace(0, 1, 5)[::-1, None] * (1, 0)
    rib[:, 1] = 0.05 * wide * np.array([0, 2, 3, 2, 0])

    def placed(points):
        return rotate(points, heading, (x, y))

    upper, lower = np.concatenate([half, rib]), np.concatenate([half * (1, -1), rib])
    if length > 24:
        whole = placed(np.concatenate([half, (half * (1, -1))[::-1]]))
        draw.polygon(pixels(whole + 0.05 * length), (20, 26, 20, 46))
    draw.polygon(pixels(placed(upper)), fill=colour)
    draw.polygon(pixels(placed(lower)), fill=shade(colour, 1.12))
    if length <= 24:
        return
    vein = shade(colour, 1.32)
    fine = max(1, round(length * 0.018))
    for share in (0.2, 0.36, 0.52, 0.68):
        reach = wide * 0.7 * math.sin(math.pi * min(1, share + 0.12))
        for side in (-1, 1):
            tip = (share * length + 0.14 * length, side * reach)
            draw.line(pixels(placed([(share * length, 0), tip])), fill=vein, width=fine)
    draw.line(pixels(placed(rib)), fill=vein, width=fine * 2)
    draw.line(pixels(placed([(-0.14 * length, 0), (0, 0)])), fill=shade(colour, 0.7), width=fine * 2)


def _berries(draw: ImageDraw.ImageDraw, size: float, place, rng: random.Random) -> None:
    colour = vary(rng.choice(list(COLOURS.values())), rng)
    radius = size * rng.uniform(0.009, 0.02)
    spread = radius * 2.1
    for _ in range(rng.randint(2, 7)):
        x, y = place[0] + rng.gauss(0, spread), place[1] + rng.gauss(0, spread)
        stem = [(x, y), ((x + place[0]) / 2, y - radius * 2.6), (place[0], place[1] - radius * 4)]
        stem = pixels(spline(stem, closed=False, steps=4))
        draw.line(stem, fill=(84, 92, 58), width=max(1, round(radius * 0.18)))
        for share, tone in ((1.0, 0.72), (0.9, 1.0), (0.55, 1.12)):
            lift = radius * (1 - share) * 0.8
            own = radius * share
            box = [x - lift * 0.6 - own, y - lift - own, x - lift * 0.6 + own, y - lift + own]
            draw.ellipse(box, fill=shade(colour, tone))
        glint = radius * 0.2
        gx, gy = x - radius * 0.35, y - radius * 0.4
        draw.ellipse([gx - glint, gy - glint, gx + glint, gy + glint], fill=(255, 255, 255))


def _flower(draw: ImageDraw.ImageDraw, size: float, place, rng: random.Random) -> None:
    colour = vary(rng.choice(list(COLOURS.values())), rng)
    radius = size * rng.uniform(0.02, 0.042)
    turn = rng.uniform(0, 2 * math.pi)
    petals = rng.choice((5, 5, 6, 7))
    for order in range(petals):
        angle = turn + order * 2 * math.pi / petals
        petal = [(0.1, 0), (0.55, -0.34), (0.98, -0.2), (1.04, 0.0), (0.98, 0.2), (0.55, 0.34)]
        shape = rotate(spline(petal, steps=3) * radius, angle, place)
        draw.polygon(pixels(shape), fill=shade(colour, (0.92, 1.06)[order % 2]))
        crease = rotate([(0.25 * radius, 0), (0.75 * radius, 0)], angle, place)
        draw.line(pixels(crease), fill=shade(colour, 0.78), width=max(1, round(radius * 0.05)))
    for reach, tone in ((0.3, (196, 148, 32)), (0.24, (242, 206, 70))):
        draw.polygon(pixels(ellipse(*place, radius * reach, radius * reach)), fill=tone)


def _twig(draw: ImageDraw.ImageDraw, size: int, place, rng: random.Random) -> None:
    bark = vary(rng.choice(_BARK), rng)
    length, heading = size * rng.uniform(0.3, 0.9), rng.uniform(-0.7, 0.7)
    bend = rng.uniform(-0.12, 0.12)
    path = spline([(0, 0), (0.35, bend), (0.7, bend * 0.6), (1, -bend)], closed=False) * length
    width = size * rng.uniform(0.004, 0.011)
    path = rotate(path, heading, place)
    draw.polygon(pixels(ribbon(path, width, width * 0.35)), fill=bark)
    draw.line(pixels(move(path, (0, -width * 0.4))), fill=shade(bark, 1.2), width=1)
