"""What is told of the rows that a query found, on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOLD = ("class", "text", "image", "box", "view", "set", "seed", "shot", "split")
"""Columns that people are shown, of those that a table has."""


def image_of(hit: Mapping[str, Any]) -> str | None:
    """The id of the image that a row is of: a crop's says it, an image's is its own, a descriptor has none."""
    return hit.get("image") or (hit["id"] if "uri" in hit else None)


def tell_hit(hit: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a row in words; those that it has not are left out, a null (no label) is empty."""
    values = {**hit, "image": image_of(hit)}
    if "box" in hit:
        values["box"] = "{},{} - {},{}".format(*hit["box"])  # left, top, right, bottom
    return {
        name: "" if values[name] is None else str(values[name])
        for name in TOLD
        if name in hit or values.get(name) is not None
    }
