"""Support sets: nested, the same whatever else there is, and of labelled images of the support split alone."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.manifest import SCHEMA
from stages.shots import draw_shots, shots_by_class, tell_of_scarce


def manifest(images: list[tuple[str, str, str | None]]) -> pa.Table:
    """Images by (id, split, class), in that order."""
    rows = [
        {"key": f"{name}@1", "id": name, "version": "1", "uri": name, "split": split, "class": label}
        for name, split, label in images
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def shots_of(images: list[tuple[str, str, str | None]], shots: int, seed: int = 1) -> dict[str, list[str]]:
    """Class -> ids of its shots, in their order."""
    drawn: dict[str, list[str]] = {}
    for row in draw_shots(manifest(images), shots, seed).to_pylist():
        assert row["key"] == f"{row['id']}@1"
        assert row["shot"] == len(drawn.setdefault(row["class"], []))
        drawn[row["class"]].append(row["id"])
    return drawn


BIRDS = [(f"{name}/{number}.png", "support", name) for name in ("wren", "it's #1", "jay") for number in range(20)]


def test_the_first_shots_of_a_seed_are_among_more_of_them_and_each_image_is_a_shot_once():
    sixteen = shots_of(BIRDS, 16)
    assert {name: len(set(images)) for name, images in sixteen.items()} == {"wren": 16, "it's #1": 16, "jay": 16}
    for shots in (1, 2, 4, 8):
        assert shots_of(BIRDS, shots) == {name: images[:shots] for name, images in sixteen.items()}


def test_shots_are_listed_by_class_and_shot_with_their_own_columns():
    drawn = draw_shots(manifest(BIRDS), 3, 1)
    assert drawn.schema.names == ["key", "id", "class", "shot"]
    assert drawn["shot"].type == pa.int32()
    assert drawn["shot"].to_pylist() == [0, 1, 2] * 3
    assert drawn["class"].to_pylist() == ["wren"] * 3 + ["it's #1"] * 3 + ["jay"] * 3


def test_another_seed_draws_other_images_and_the_same_seed_the_same():
    assert shots_of(BIRDS, 4, seed=1) == shots_of(BIRDS, 4, seed=1)
    assert shots_of(BIRDS, 4, seed=1) != shots_of(BIRDS, 4, seed=2)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(BIRDS), without=st.sampled_from(["wren", "jay"]), shots=st.integers(1, 25))
def test_neither_the_order_of_the_manifest_nor_other_classes_change_a_class_s_shots(order, without, shots):
    whole = shots_of(BIRDS, shots)
    assert shots_of(order, shots) == whole
    rest = [image for image in order if image[2] != without]
    assert shots_of(rest, shots) == {name: images for name, images in whole.items() if name != without}


def test_images_without_a_label_or_of_other_splits_are_no_shots():
    others = [("x.png", "support", None), ("y.png", "query", "wren"), ("z.png", "validation", "jay")]
    assert shots_of(BIRDS + others, 25) == shots_of(BIRDS, 25)
    assert shots_by_class(manifest(BIRDS + others)) == {"wren": 20, "it's #1": 20, "jay": 20}
    assert shots_of(others, 4) == {}
    assert draw_shots(manifest(others), 4, 1).schema.names == ["key", "id", "class", "shot"]


def test_a_class_with_fewer_images_than_shots_has_those_and_the_others_have_all():
    few = [("a.png", "support", "owl"), ("b.png", "support", "owl"), *BIRDS]
    assert {name: len(images) for name, images in shots_of(few, 8).items()} == {
        "owl": 2,
        "wren": 8,
        "it's #1": 8,
        "jay": 8,
    }


def test_classes_with_too_few_images_are_counted_and_the_first_five_named():
    images = manifest([("a.png", "support", "owl"), ("b.png", "support", None), ("c.png", "query", "jay"), *BIRDS])
    known = ("owl", "jay", "wren")
    assert tell_of_scarce(images, known, 1) is None
    assert tell_of_scarce(images, known, 4) == (
        "1 of 3 classes have fewer than 4 images in the support split (owl (1)): those are all their shots"
    )
    many = (*known, *(f"none {number}" for number in range(5)))
    assert tell_of_scarce(images, many, 2) == (
        "6 of 8 classes have fewer than 2 images in the support split "
        "(owl (1), none 0 (0), none 1 (0), none 2 (0), none 3 (0), ...): those are all their shots"
    )
