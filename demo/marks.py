"""The vocabulary of the rendered world: parts of a bird, colours, shapes, and the words for them.

A *mark* is a part with a colour and a shape; its phrase ("a long red beak") is what captions and
descriptors say. A species is one mark for each part. Species of one genus share the large marks and
differ in small ones, so that telling them apart needs a close look.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

COLOURS = {
    "red": (206, 32, 36),
    "orange": (243, 134, 28),
    "yellow": (249, 219, 44),
    "green": (48, 150, 62),
    "blue": (42, 92, 214),
    "purple": (126, 52, 166),
    "pink": (244, 140, 184),
    "brown": (124, 76, 38),
    "white": (245, 244, 238),
    "black": (32, 32, 37),
}

SHAPES = {
    "beak": ("long", "short", "hooked"),
    "crown": ("flat", "spiky"),
    "cheek": ("round",),
    "breast": ("plain", "striped", "spotted"),
    "back": ("plain",),
    "wings": ("plain", "barred", "spotted"),
    "tail": ("long", "short", "forked"),
    "legs": ("long", "short"),
}

PARTS = tuple(SHAPES)
# How a part is written into the map of which part shows at a pixel.
PART_NUMBER = {part: number for number, part in enumerate(PARTS, start=1)}

SMALL_PARTS = ("beak", "crown", "cheek", "tail", "legs")
SMALLEST_DIFFERENCE = 3

# Parts that touch must not share a colour, or one of the two marks could not be seen.
_TOUCHING = (
    ("wings", "back"),
    ("cheek", "back"),
    ("crown", "back"),
    ("breast", "back"),
    ("breast", "wings"),
    ("cheek", "crown"),
)


@dataclass(frozen=True)
class Mark:
    """One part of a bird with its colour (a key of `COLOURS`) and shape (one of `SHAPES[part]`)."""

    part: str
    colour: str
    shape: str

    @property
    def phrase(self) -> str:
        """The mark in words, with its article where English wants one: "a long red beak"."""
        if self.part in ("cheek", "back"):
            return f"{'an' if self.colour == 'orange' else 'a'} {self.colour} {self.part}"
        if self.part in ("wings", "legs"):
            return f"{self.shape} {self.colour} {self.part}"
        noun = "crest" if self.shape == "spiky" else self.part
        return f"a {self.shape} {self.colour} {noun}"


@dataclass(frozen=True)
class Species:
    """A kind of bird: its name, its genus, and one mark for each part, in the order of `PARTS`."""

    name: str
    genus: str
    marks: tuple[Mark, ...]

    def mark(self, part: str) -> Mark:
        """The mark on `part`."""
        return self.marks[PARTS.index(part)]


EVERY_MARK = tuple(Mark(part, colour, shape) for part in PARTS for colour in COLOURS for shape in SHAPES[part])


def in_contrast(marks: tuple[Mark, ...]) -> bool:
    """Whether no two touching parts share a colour."""
    colour = {mark.part: mark.colour for mark in marks}
    return all(colour[one] != colour[other] for one, other in _TOUCHING)


def differing_parts(one: tuple[Mark, ...], other: tuple[Mark, ...]) -> list[str]:
    """The parts whose mark differs between two combinations."""
    return [mark.part for mark, its in zip(one, other, strict=True) if mark != its]


def draw_marks(rng: random.Random) -> tuple[Mark, ...]:
    """A combination of marks that keeps the rules of contrast."""
    while True:
        marks = tuple(Mark(part, rng.choice(list(COLOURS)), rng.choice(SHAPES[part])) for part in PARTS)
        if in_contrast(marks):
            return marks


def draw_siblings(rng: random.Random, count: int) -> list[tuple[Mark, ...]]:
    """Combinations for one genus: breast, back and wings shared, every pair differing in at least
    `SMALLEST_DIFFERENCE` of the small parts."""
    base = draw_marks(rng)
    siblings: list[tuple[Mark, ...]] = []
    while len(siblings) < count:
        other = draw_marks(rng)
        changed = rng.sample(SMALL_PARTS, rng.choice((3, 4)))
        marks = tuple(theirs if own.part in changed else own for own, theirs in zip(base, other, strict=True))
        if not in_contrast(marks):
            continue
        if all(len(differing_parts(marks, sibling)) >= SMALLEST_DIFFERENCE for sibling in siblings):
            siblings.append(marks)
    return siblings
