"""Answers to a query as a page: the images found, best first, with the crops that were found drawn on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.hits import image_of, tell_hit
from pipeline.pages import COLOURS, Box, picture_with_boxes, render
from storage.blobs import read_blobs

READ_TOGETHER = 16
"""Images in memory at a time, as files."""
OF_THE_CARD = ("class", "image", "split")
"""Columns that are told once a card, or go without saying there."""


@dataclass
class _Card:
    image: str | None
    class_name: str | None
    hits: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """rank, from 1, and hit"""


def hits_page(
    asked: str, hits: Sequence[Mapping[str, Any]], manifest: pa.Table, *, lead: str, picture: bytes | None = None
) -> str:
    """A page of the rows that `FeatureStore.search` found for what was `asked`, an image a card.

    The `manifest` says where the images lie now; one that is not in it, or not to be read, is a grey card that says so.
    `picture` is the image that was asked for, where it was one.
    """
    by_image = _by_image(hits)
    wanted = pa.array([card.image for card in by_image], pa.string())
    listed = {row["id"]: row for row in manifest.filter(pc.is_in(manifest["id"], value_set=wanted)).to_pylist()}
    cards = [
        {
            "picture": shown,
            "image": card.image,
            "class_name": card.class_name,
            "hits": [
                {
                    "rank": rank,
                    "colour": _colour(rank),
                    "similarity": f"{hit['similarity']:.3f}",
                    "facts": [fact for fact in tell_hit(hit).items() if fact[0] not in OF_THE_CARD and fact[1]],
                }
                for rank, hit in card.hits
            ],
        }
        for card, shown in _pictured(by_image, listed)
    ]
    asked_picture = None if picture is None else picture_with_boxes(picture, [], longest_side=240)
    return render("hits.html.j2", asked=asked, lead=lead, picture=asked_picture, cards=cards)


def _by_image(hits: Sequence[Mapping[str, Any]]) -> list[_Card]:
    """The hits of an image together, where the best of them stands; a row without an image is alone."""
    cards: dict[Any, _Card] = {}
    for rank, hit in enumerate(hits, start=1):
        image = image_of(hit)
        card = cards.setdefault(("row", rank) if image is None else image, _Card(image, hit.get("class")))
        card.hits.append((rank, dict(hit)))
    return list(cards.values())


def _pictured(cards: Sequence[_Card], listed: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[_Card, str | None]]:
    for start in range(0, len(cards), READ_TOGETHER):
        some = cards[start : start + READ_TOGETHER]
        there = [listed[card.image]["uri"] for card in some if card.image in listed]
        data = dict(zip(there, read_blobs(there), strict=True))
        for card in some:
            if card.image is None:
                yield card, None
                continue
            found: bytes | OSError = OSError("it is not in the data set any more")
            if row := listed.get(card.image):
                found = (
                    data[row["uri"]] if _is_as_encoded(card, row) else OSError("it has changed since it was encoded")
                )
            boxes = [
                Box(hit["box"], str(rank), f"{rank}: {hit['similarity']:.3f}", _colour(rank))
                for rank, hit in reversed(card.hits)  # the best over the others
                if "box" in hit
            ]
            yield card, picture_with_boxes(found, boxes, longest_side=480)


def _is_as_encoded(card: _Card, row: Mapping[str, str]) -> bool:
    """Whether the boxes are of the file that is there now: a row's id or version says which one it was made from."""
    _, hit = card.hits[0]
    return hit["version"] == row["version"] if "version" in hit else f"{row['key']}#" in hit["id"]


def _colour(rank: int) -> str:
    return COLOURS[(rank - 1) % len(COLOURS)]
