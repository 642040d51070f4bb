"""Which descriptors to drop: among those that fit their class no better than chance or cost images, the worst.

Each alone tells little where a class has few images, and what single removals gain does not add up: in a world where
all descriptors are true, dropping every doubtful one cost a quarter of the accuracy. So they are ranked, and as many of
the worst are dropped as leave the most images right together (`stages.audit.filter_descriptors`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Verdict = Literal["", "keep", "drop"]

FEWEST = 5
"""Images of a class, and of all others, below which nobody can say whether a descriptor fits by chance."""
LEVEL = 0.05
"""A descriptor fits its class above chance where chance gives an AUC as high less often than this."""
STEPS = 16
"""Numbers of doubtful descriptors that are tried: sixteenths of all."""
LEAST = 2
"""Descriptors that figures leave every class that has so many."""


class Judged(NamedTuple):
    """What is known of a descriptor that may be dropped."""

    auc: float
    p: float
    """nan where there are too few images to say"""
    gain: int
    """images that are right without it and not with it, less those that are right with it alone"""
    verdict: Verdict = ""


def is_hallucinated(p: float) -> bool | None:
    """Whether a descriptor fits its class no better than chance; None where that is not known."""
    return None if math.isnan(p) else p >= LEVEL


def doubt(one: Judged) -> str | None:
    """Why the figures speak against a descriptor: it is hallucinated, or its removal gains images. None if neither.

    Nor of a class with too few images: those that it would lose are not there to be counted.
    """
    if math.isnan(one.p):
        return None
    found = ["fits no better than chance"] if is_hallucinated(one.p) else []
    if one.gain > 0:
        found.append(f"{one.gain:,} more image{'s are' if one.gain > 1 else ' is'} right without it")
    return " and ".join(found) or None


def rank_doubtful(classes: Sequence[Sequence[Judged]]) -> list[tuple[int, int]]:
    """Class and place of the descriptors that may be dropped, worst first: first those with two reasons, then by AUC.

    Never more than half of a class's, nor below `LEAST`, those counted that a verdict drops. What has a verdict is not
    among them.
    """
    found = [
        (c, place)
        for c, descriptors in enumerate(classes)
        for place, one in enumerate(descriptors)
        if not one.verdict and doubt(one)
    ]
    found.sort(key=lambda where: _order(classes[where[0]][where[1]]))
    room = [_room(descriptors) for descriptors in classes]
    ranked = []
    for c, place in found:
        if room[c] > 0:
            room[c] -= 1
            ranked.append((c, place))
    return ranked


def steps(count: int) -> list[int]:
    """How many of so many doubtful descriptors are tried to be dropped, from none to all: each number once, rising."""
    return sorted({round(count * step / STEPS) for step in range(STEPS + 1)})


def _order(one: Judged) -> tuple[bool, float]:
    return not (is_hallucinated(one.p) and one.gain > 0), one.auc


def _room(descriptors: Sequence[Judged]) -> int:
    """How many of a class's descriptors the figures may drop."""
    count = len(descriptors)
    kept = count - sum(one.verdict == "drop" for one in descriptors)
    return max(0, kept - max(math.ceil(count / 2), min(LEAST, count)))
