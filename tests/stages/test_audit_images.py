"""Which images descriptors are judged on, and on which others a filter is measured."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stages.audit_images import choose_parts
from stages.manifest import SCHEMA

NAMES = {"jay": "jay", "wren (a)": "wren", "wren (b)": "wren"}


def listed(**splits: dict[str | None, int]) -> pa.Table:
    """A manifest with so many images of each class id in each split."""
    rows = [
        {"id": f"{split}/{name}/{n}", "split": split, "class": name}
        for split, counts in splits.items()
        for name, count in counts.items()
        for n in range(count)
    ]
    return pa.Table.from_pylist([row | {"key": row["id"] + "@1", "version": "1", "uri": "x"} for row in rows], SCHEMA)


def parts(manifest: pa.Table, split: str | None = None, classes=tuple(NAMES), stored: pa.ChunkedArray | None = None):
    return choose_parts(manifest, NAMES, classes, manifest["key"] if stored is None else stored, split)


def test_the_query_split_is_halved_and_no_image_is_in_both_halves():
    manifest = listed(query={"jay": 40, "wren (a)": 30, "wren (b)": 30, None: 9})
    judged, measured = parts(manifest)
    one, two = (set(part.images["id"].to_pylist()) for part in (judged, measured))
    assert not one & two
    assert len(one | two) == 100, "all that have a label"
    assert 30 < len(one) < 70
    assert set(judged.images["class"].to_pylist()) == {"jay", "wren"}, "classes are those of the spoken names"
    assert [judged.what, measured.what] == ["half of the query split", "the other half of the query split"]


def test_new_images_change_no_image_s_half():
    few, more = (parts(listed(query={"jay": count}))[0].images["id"].to_pylist() for count in (30, 60))
    assert [one for one in more if int(one.split("/")[-1]) < 30] == few


def test_support_is_judged_on_where_it_tells_something_of_every_class_and_measured_on_the_next_split():
    enough = {"jay": 5, "wren (a)": 5}
    judged, measured = parts(listed(support=enough, query={"jay": 3}))
    assert (judged.what, len(judged.images)) == ("the support split", 10)
    assert (measured.what, len(measured.images)) == ("the query split", 3)
    judged, measured = parts(listed(support=enough, validation={"jay": 2}, query={"jay": 3}))
    assert (judged.what, measured.what) == ("the support split", "the validation split")
    judged, measured = parts(listed(support={"jay": 9, "wren (a)": 4}, validation={"jay": 2}, query={"jay": 3}))
    assert (judged.what, measured.what) == ("the validation split", "the query split")
    judged, measured = parts(listed(support={"jay": 9}, query={"jay": 3}), "support")
    assert (judged.what, measured.what) == ("the support split", "the query split")
    judged, measured = parts(listed(support={"jay": 9}), "support")
    assert measured is None


def test_only_stored_images_of_classes_that_may_be_predicted_count():
    manifest = listed(support={"jay": 9, "wren (a)": 9}, query={"jay": 30, "wren (a)": 30})
    stored = manifest["key"].filter(pa.compute.starts_with(manifest["key"], "query"))
    judged, measured = parts(manifest, classes=["jay"], stored=stored)
    assert len(judged.images) + len(measured.images) == 30
    with pytest.raises(ValueError, match="no labelled image of the support split has a stored feature"):
        parts(manifest, "support", stored=stored)
