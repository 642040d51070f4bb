"""Drawing the head: skull, beak, crown, cheek and eye. Coordinates as in `birds`, about the head's centre."""

from __future__ import annotations

from demo.drawing import OUTLINE, Colour, Plate, ellipse, move, rotate, shade, spline
from demo.marks import PART_NUMBER, Species

_SKULL = [(-0.4, 0.05), (-0.3, -0.29), (0.02, -0.41), (0.3, -0.29), (0.43, 0.0), (0.33, 0.26), (0.05, 0.36)]
_SKULL += [(-0.26, 0.3)]

_CAP = [(-0.42, 0.0), (-0.38, -0.22), (-0.18, -0.39), (0.04, -0.43), (0.27, -0.35), (0.4, -0.14), (0.22, -0.13)]
_CAP += [(0.0, -0.15), (-0.22, -0.1)]

# The tips of a crest's plumes and where each grows from, back to front.
_PLUMES = [(-0.6, -0.6, -0.2), (-0.36, -0.78, -0.08), (-0.1, -0.86, 0.08), (0.16, -0.78, 0.26)]

# Upper and lower half of each beak.
_BEAKS = {
    "long": (
        [(0, -0.13), (0.3, -0.09), (0.78, 0.04), (0.3, 0.03), (0, 0.03)],
        [(0, 0.02), (0.3, 0.02), (0.74, 0.045), (0.3, 0.09), (0, 0.13)],
    ),
    "short": (
        [(0, -0.18), (0.2, -0.11), (0.36, 0.04), (0.15, 0.03), (0, 0.02)],
        [(0, 0.01), (0.15, 0.02), (0.33, 0.045), (0.17, 0.13), (0, 0.17)],
    ),
    "hooked": (
        [(0, -0.19), (0.24, -0.19), (0.43, -0.04), (0.45, 0.31), (0.34, 0.14), (0.2, 0.05), (0, 0.04)],
        [(0, 0.03), (0.2, 0.05), (0.31, 0.13), (0.2, 0.18), (0, 0.18)],
    ),
}


def draw_head(plate: Plate, species: Species, head, beak_turn: float, colours: dict[str, Colour]) -> None:
    """Paint the head at `head` (x, y) with the beak turned by `beak_turn` radians; `colours` are a part's."""
    plate.fill(move(spline(_SKULL), head), colours["back"])
    _beak(plate, species.mark("beak").shape, head, beak_turn, colours["beak"])
    _crown(plate, species.mark("crown").shape, head, colours["crown"])
    _cheek(plate, head, colours["cheek"])
    _eye(plate, head)


def _beak(plate: Plate, shape: str, head, turn: float, colour: Colour) -> None:
    base = move(head, (0.36, 0.02))
    upper, lower = (rotate(spline(half, steps=5), turn, base) for half in _BEAKS[shape])
    plate.fill(lower, shade(colour, 0.82), PART_NUMBER["beak"], OUTLINE)
    plate.fill(upper, colour, PART_NUMBER["beak"], OUTLINE)
    plate.stroke(rotate([(0.1, -0.06), (0.15, -0.05)], turn, base), shade(colour, 0.5), 0.025)


def _crown(plate: Plate, shape: str, head, colour: Colour) -> None:
    if shape == "spiky":
        for (x, y, root), tone in zip(_PLUMES, (0.84, 0.92, 1.0, 1.05), strict=True):
            plume = [(root - 0.13, -0.26), (x - 0.06, y * 0.72), (x, y), (x + 0.13, y * 0.66)]
            plume += [(root + 0.15, -0.24)]
            plate.fill(move(spline(plume), head), shade(colour, tone), PART_NUMBER["crown"], OUTLINE)
    plate.fill(move(spline(_CAP), head), colour, PART_NUMBER["crown"], OUTLINE * 0.8)


def _cheek(plate: Plate, head, colour: Colour) -> None:
    patch = move(ellipse(-0.04, 0.14, 0.205, 0.155, -0.15), head)
    plate.fill(patch, colour, PART_NUMBER["cheek"], OUTLINE * 0.8)
    for place in ((-0.12, 0.12), (-0.02, 0.17), (-0.1, 0.2), (0.05, 0.12)):
        fleck = move(ellipse(*place, 0.05, 0.03, 0.2, (1.8, 4.4)), head)
        plate.stroke(fleck, shade(colour, 0.84), 0.014)


def _eye(plate: Plate, head) -> None:
    x, y = move(head, (0.14, -0.06))
    for radius, colour in ((0.088, (250, 248, 240)), (0.066, (70, 44, 22)), (0.05, (8, 8, 10))):
        plate.fill(ellipse(x, y, radius, radius), colour)
    plate.fill(ellipse(x + 0.022, y - 0.026, 0.019, 0.019), (255, 255, 255))
