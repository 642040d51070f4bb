"""What can be said of a crop: which marks it shows, the sentences for them, and which sentences fit it.

A mark may be named when at least 60 % of its box is inside the crop and it is large enough to see there. A
mark that is cut off or too small is neither right nor wrong to name: the loss leaves such pairs out.
"""

from __future__ import annotations

import random

import numpy as np

from demo.marks import COLOURS, EVERY_MARK, PARTS, SHAPES, Mark

INPUT_SIZE = 64
SMALLEST_SIGHT = 3.2  # side, in pixels of the model's input, of the smallest mark that counts as seen
LEAST_SHARE = 0.6
LEAST_TRACE = 0.08  # a smaller share of a part inside the crop is as good as none

_ONE = ("a bird with {}", "a photo of a bird with {}", "a close-up of {}", "{}", "a bird that has {}")
_ONE += ("a photo of {}", "a cropped photo of {}", "a bird with {}.", "a photo of a bird with {}.")
_MANY = ("a photo of a bird with {}", "a bird with {}", "a picture of a bird that has {}", "{}")
_MANY += ("an image of a bird with {}", "a bird with {}.", "a photo of a bird with {}.")
_NOTHING = ("a photo of leaves and branches", "a blurry background", "foliage with no bird")
_NOTHING += ("green leaves, berries and flowers", "an empty branch", "a background of leaves.")


def _any_shape(part: str, colour: str) -> str:
    if part in ("wings", "legs"):
        return f"{colour} {part}"
    return f"{'an' if colour == 'orange' else 'a'} {colour} {part}"


# Everything that can be said of one part: every mark, and for parts of several shapes the colour alone.
_COLOUR_ONLY = tuple((part, colour) for part in PARTS if len(SHAPES[part]) > 1 for colour in COLOURS)
PHRASES = tuple(mark.phrase for mark in EVERY_MARK) + tuple(_any_shape(*pair) for pair in _COLOUR_ONLY)
_OF_MARK = {mark: place for place, mark in enumerate(EVERY_MARK)}
_OF_COLOUR = {pair: len(EVERY_MARK) + place for place, pair in enumerate(_COLOUR_ONLY)}


def descriptor(mark: Mark) -> str:
    """The sentence of a descriptor file for a mark: "A bird with a long red beak."."""
    return f"A bird with {mark.phrase}."


def phrases_of(mark: Mark) -> tuple[int, ...]:
    """Places in `PHRASES` of all that is true of a mark: the mark itself, and its colour alone."""
    pair = (mark.part, mark.colour)
    return (_OF_MARK[mark], _OF_COLOUR[pair]) if pair in _OF_COLOUR else (_OF_MARK[mark],)


def sight(boxes: np.ndarray, crop) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a crop shows of parts with `boxes` `[8, 4]`; all boxes are fractions of the picture.

    Returns whether each part is seen, whether it is there but cut off or too small, and its side in pixels
    once the crop is `INPUT_SIZE` wide and high, each `[8]`.
    """
    left, top, right, bottom = crop
    wide = np.clip(np.minimum(boxes[:, 2], right) - np.maximum(boxes[:, 0], left), 0, None)
    high = np.clip(np.minimum(boxes[:, 3], bottom) - np.maximum(boxes[:, 1], top), 0, None)
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share = wide * high / np.maximum(whole, 1e-9)
    side = INPUT_SIZE * np.sqrt(wide * high / ((right - left) * (bottom - top)))
    seen = (share > LEAST_SHARE) & (side > SMALLEST_SIGHT)
    return seen, (share > LEAST_TRACE) & ~seen, side


def draw_crop(boxes: np.ndarray, rng: random.Random) -> tuple[float, float, float, float]:
    """A box to train on: 15 % are the whole picture; the others have an area log-uniform in .05 to 1, and
    seven in ten of them lie about a part."""
    if rng.random() < 0.15:
        return (0.0, 0.0, 1.0, 1.0)
    area, aspect = np.exp(rng.uniform(np.log(0.05), 0)), np.exp(rng.uniform(-0.3, 0.3))
    wide, high = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)
    if rng.random() < 0.7:
        part = boxes[rng.randrange(len(boxes))]
        x = (part[0] + part[2] - wide) / 2 + rng.gauss(0, 0.25 * wide)
        y = (part[1] + part[3] - high) / 2 + rng.gauss(0, 0.25 * high)
        x, y = min(max(x, 0), 1 - wide), min(max(y, 0), 1 - high)
    else:
        x, y = rng.uniform(0, 1 - wide), rng.uniform(0, 1 - high)
    return (x, y, x + wide, y + high)


def choose_phrases(marks, seen: np.ndarray, side: np.ndarray, rng: random.Random) -> tuple[int, ...]:
    """One to four of the seen marks as places in `PHRASES`, larger ones more often; one in six says the
    colour alone. Empty when nothing is seen."""
    left = {place: side[place] ** 0.5 for place in np.flatnonzero(seen)}
    chosen = []
    for _ in range(min(len(left), rng.choice((1, 1, 2, 2, 3, 3, 4)))):
        place = rng.choices(list(left), list(left.values()))[0]
        del left[place]
        mark, *colour = phrases_of(marks[place])
        chosen.append(colour[0] if colour and rng.random() < 1 / 6 else mark)
    return tuple(chosen)


def caption(phrases: tuple[int, ...], rng: random.Random) -> str:
    """A sentence that says all of `phrases` (places in `PHRASES`), or that there is no bird."""
    if not phrases:
        return rng.choice(_NOTHING)
    words = [PHRASES[place] for place in phrases]
    if len(words) == 1:
        return rng.choice(_ONE).format(words[0])
    return rng.choice(_MANY).format(f"{', '.join(words[:-1])} and {words[-1]}")


def every_sentence() -> list[str]:
    """Sentences that together use every word and sign that a caption or a descriptor can contain."""
    templates = (*_ONE, *_MANY)
    return [*_NOTHING, *(template.format(f"{phrase}, and.") for template in templates for phrase in PHRASES)]
