"""What is encoded: every query image, the shots of all seeds, validation images where something is searched there."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stages.images_to_encode import images_to_encode
from stages.manifest import SCHEMA
from stages.methods import parse_method
from stages.shots import draw_shots

SPLITS = {"query": 3, "support": 9, "validation": 2}


@pytest.fixture(scope="module")
def manifest() -> pa.Table:
    """Of each of two classes the images of `SPLITS`, and of each split one image without a label."""
    images = [(split, name, n) for split, count in SPLITS.items() for name in ("jay", "wren") for n in range(count)]
    images += [(split, None, 0) for split in SPLITS]
    ids = [f"{split}/{name or 'none'}/{n}" for split, name, n in images]
    rows = [
        {"key": f"{one}@1", "id": one, "version": "1", "uri": one, "split": split, "class": name}
        for one, (split, name, _) in zip(ids, images, strict=True)
    ]
    return pa.Table.from_pylist(rows, SCHEMA).sort_by("id")


@pytest.fixture
def encoded(manifest):
    """`encoded(methods, views=())` -> ids to encode of the whole image (under ""), and by view set."""

    def ask(methods: list, *views: str) -> dict[str, list[str]]:
        chosen = images_to_encode(manifest, [parse_method(one) for one in methods], views)
        keys = {"": chosen.whole, **chosen.views}
        return {name: [key.removesuffix("@1") for key in found.to_pylist()] for name, found in keys.items()}

    return ask


@pytest.fixture
def of_split(manifest):
    """`of_split("query", ...)` -> ids of all images of these splits; `support` stands for shots, which are given."""

    def ids(*splits: str, shots: tuple[tuple[int, int], ...] = (), labelled: bool = False) -> list[str]:
        drawn = {one for count, seed in shots for one in draw_shots(manifest, count, seed)["id"].to_pylist()}
        rows = manifest.to_pylist()
        chosen = [row for row in rows if row["split"] in splits and (row["class"] or row["split"] == "query")]
        return [row["id"] for row in rows if row in chosen or row["id"] in drawn]

    return ids


TIP = {"name": "tip", "shots": [1, 2], "seeds": [1, 2], "search": False}
DND_TIP = {"name": "dnd_tip", "shots": [1], "seeds": [3], "search": False, "views": "random"}


def test_zero_shot_methods_read_the_query_split_alone_labelled_or_not(encoded, of_split):
    found = encoded(["clip", {"name": "dnd", "views": "random"}], "random")
    assert found == {"": of_split("query"), "random": of_split("query")}
    assert "query/none/0" in found[""]


def test_of_the_support_split_the_shots_of_all_seeds_and_methods_are_read_and_no_others(encoded, of_split):
    found = encoded([{**TIP, "label": "more", "shots": [4], "seeds": [2]}, TIP, DND_TIP], "augmented", "random")
    shots = ((2, 1), (4, 2), (1, 3))
    assert found[""] == of_split("query", shots=shots)
    assert 0 < sum(one.startswith("support") for one in found[""]) < 2 * SPLITS["support"]


def test_validation_images_are_read_where_a_method_searches_there_and_only_labelled_ones(encoded, of_split):
    for search, splits in ((False, ("query",)), (True, ("query", "validation")), (None, ("query", "validation"))):
        found = encoded([{**TIP, "search": search}], "augmented")
        assert found[""] == of_split(*splits, shots=((2, 1), (2, 2)))
    assert "validation/none/0" not in found[""]


def test_crops_of_validation_images_are_read_where_a_method_that_reads_crops_searches(encoded, of_split):
    shots = ((2, 1), (2, 2), (1, 3))
    found = encoded([TIP, {**DND_TIP, "search": True}], "augmented", "random")
    assert found["random"] == of_split("query", "validation", shots=shots)
    found = encoded([{**TIP, "search": True}, DND_TIP], "augmented", "random")
    assert found["random"] == of_split("query", shots=shots)
    assert found[""] == of_split("query", "validation", shots=shots)


def test_augmented_versions_are_those_of_shots_alone(encoded, of_split):
    found = encoded([{**TIP, "search": True}], "augmented")
    assert found["augmented"] == of_split(shots=((2, 1), (2, 2)))
    assert encoded([{**TIP, "augmented": False}], "augmented")["augmented"] == of_split("query")


def test_a_view_set_that_is_read_as_crops_and_as_versions_is_encoded_for_both(encoded, of_split):
    own = {**TIP, "augmented_views": "random"}
    shots = ((2, 1), (2, 2))
    assert encoded([own], "random")["random"] == of_split(shots=shots)
    assert encoded([own, {"name": "dnd", "views": "random"}], "random")["random"] == of_split("query", shots=shots)


def test_a_view_set_that_only_zero_shot_methods_read_has_no_shots(encoded, of_split):
    found = encoded([TIP, {"name": "dnd", "views": "random"}], "augmented", "random")
    assert found["random"] == of_split("query")


def test_a_view_set_that_nobody_reads_is_encoded_of_the_query_split(encoded, of_split):
    assert encoded(["clip"], "random")["random"] == of_split("query")


def test_view_sets_that_want_the_same_images_share_one_column(manifest):
    methods = [parse_method(DND_TIP), parse_method({**DND_TIP, "label": "b", "views": "guided"})]
    chosen = images_to_encode(manifest, methods, ["random", "guided"])
    assert chosen.views["random"] is chosen.views["guided"]
    assert chosen.views["random"] is chosen.whole
