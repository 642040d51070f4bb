"""Random descriptors: words and strings of letters that mean nothing, as WaffleCLIP says them of every class.

Their lengths are those of the class names, so that prompts stay about as long as described ones (algorithms.md 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean


@dataclass(frozen=True)
class Shape:
    """How long a random descriptor is."""

    words: int
    """words of a word descriptor, joined by spaces"""
    letters: int
    """letters that are kept of each word"""
    blocks: int
    """blocks of a character descriptor, joined by commas"""
    characters: int
    """characters of each block"""


def shape_of(names: Sequence[str]) -> Shape:
    """The shape that fits these class names, as they are spoken; none may be blank (algorithms.md 5, 1 and 3).

    The published code counts blocks and their lengths in its files' keys as written, so that where those keys have `_`
    for a space its blocks are fewer and longer. A block is one character longer than its share even where the division
    leaves no rest.
    """
    words = [name.split() for name in names]
    blocks = round(fmean(name.count(" ") for name in names)) + 1
    longest = math.ceil(fmean(max(len(token) for token in name.split(" ")) for name in names))
    return Shape(
        words=max(1, round(fmean(len(parts) for parts in words))),
        letters=max(1, round(fmean(fmean(len(word) for word in parts) for parts in words))),
        blocks=blocks,
        characters=longest // blocks + 1,
    )


@lru_cache(maxsize=1)  # the draws of a job follow one another with the same texts, megabytes of them
def characters_of(descriptors: tuple[str, ...]) -> str:
    """All characters of these texts once, in order, without commas, full stops and white space."""
    return "".join(sorted(c for c in set().union(*descriptors) if c not in ",." and not c.isspace()))


def random_descriptors(shape: Shape, words: Sequence[str], characters: str, *, pairs: int, seed: int) -> list[str]:
    """`pairs` word descriptors, each followed by a character descriptor: 2 x pairs texts, the same for equal arguments.

    Raises ValueError without words or characters.
    """
    import numpy as np

    if not words or not characters:
        raise ValueError("random descriptors need at least one word and one character to draw from")
    rng = np.random.default_rng(seed)
    descriptors = []
    for _ in range(pairs):
        chosen = rng.integers(len(words), size=shape.words)
        descriptors.append(" ".join(words[number][: shape.letters] for number in chosen))
        drawn = rng.integers(len(characters), size=(shape.blocks, shape.characters))
        descriptors.append(", ".join("".join(characters[number] for number in block) for block in drawn))
    return descriptors
