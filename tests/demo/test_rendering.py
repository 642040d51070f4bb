"""A picture follows from species and seed, and its boxes are where the marks really are."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from demo.marks import COLOURS, PART_NUMBER, PARTS, Mark, Species
from demo.render import FAR, part_boxes, render
from demo.species import species_of


def painted(**colours: str) -> Species:
    """A bird in white with black wings, save for the given parts."""
    shapes = {"beak": "hooked", "crown": "spiky", "cheek": "round", "tail": "long", "legs": "long"}
    plain = dict.fromkeys(PARTS, "white") | {"wings": "black"} | colours
    return Species("", "", tuple(Mark(part, plain[part], shapes.get(part, "plain")) for part in PARTS))


def saturated(pixels: np.ndarray, colour: str) -> np.ndarray:
    """Which pixels have the hue of a colour, give or take 20 degrees, and are vivid."""
    hue = colorsys.rgb_to_hsv(*(value / 255 for value in COLOURS[colour]))[0]
    high, low = pixels.max(-1).astype(float), pixels.min(-1).astype(float)
    red, green, blue = np.moveaxis(pixels.astype(float), -1, 0)
    spread = np.maximum(high - low, 1)
    found = np.select(
        [high == red, high == green], [(green - blue) / spread, 2 + (blue - red) / spread], 4 + (red - green) / spread
    )
    away = np.abs((found / 6 - hue + 0.5) % 1 - 0.5)
    return (away < 20 / 360) & (high - low > 0.35 * high) & (high > 60)


def test_the_same_species_and_seed_give_the_same_picture_and_boxes():
    species = species_of("test_0")[0]
    (first, boxes), (again, same_boxes) = render(species, 5, size=96), render(species, 5, size=96)
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert boxes == same_boxes
    other, _ = render(species, 6, size=96)
    assert not np.array_equal(np.asarray(first), np.asarray(other))


def test_siblings_with_one_seed_are_different_pictures():
    one, other = species_of("test_0")[:2]
    assert not np.array_equal(np.asarray(render(one, 5, size=96)[0]), np.asarray(render(other, 5, size=96)[0]))


@pytest.mark.parametrize("part", PARTS)
def test_the_colour_of_a_mark_fills_its_box_and_not_the_boxes_of_distant_parts(part):
    for seed in range(2):
        picture, boxes = render(painted(**{part: "purple"}), seed)
        pixels = np.asarray(picture)
        inside = share_of_purple(pixels, boxes[part])
        apart = [box for other, box in boxes.items() if other != part and not overlap(box, boxes[part])]
        assert inside > 0.15
        if part == "back":
            continue  # the face wears the colour of the back, so other boxes do hold some of it
        assert all(inside > 3 * share_of_purple(pixels, box) for box in apart)


def share_of_purple(pixels: np.ndarray, box) -> float:
    left, top, right, bottom = (round(edge * len(pixels)) for edge in box)
    return saturated(pixels[top:bottom, left:right], "purple").mean()


def overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_every_box_lies_inside_the_picture_and_is_a_few_pixels_wide():
    for seed, species in enumerate(species_of("validation")[::5]):
        _, boxes = render(species, seed)
        assert list(boxes) == list(PARTS)
        for left, top, right, bottom in boxes.values():
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            assert (right - left) * 256 >= 4
            assert (bottom - top) * 256 >= 4


def test_a_bird_further_away_is_smaller_and_still_shows_every_part():
    for seed, species in enumerate(species_of("validation")[::6]):
        (_, close), (_, far) = render(species, seed), render(species, seed, width=FAR)
        assert far["breast"][2] - far["breast"][0] < close["breast"][2] - close["breast"][0]


def test_a_box_holds_the_pixels_of_its_part_counted_from_the_corner():
    """An eight by eight map at (10, 20) of a picture of 40 pixels: beak (1) in one place, the rest below it."""
    parts = np.zeros((8, 8), np.uint8)
    parts[1:3, 2:6] = PART_NUMBER["beak"]
    for number in range(2, 9):
        parts[7, number - 1] = number
    boxes = part_boxes(parts, corner=(10, 20), size=40)
    assert boxes["beak"] == (12 / 40, 21 / 40, 16 / 40, 23 / 40)
    assert boxes["legs"] == (17 / 40, 27 / 40, 18 / 40, 28 / 40)
    with pytest.raises(ValueError, match="the crown shows nowhere"):
        part_boxes(np.where(parts == PART_NUMBER["crown"], 0, parts), corner=(0, 0), size=40)
