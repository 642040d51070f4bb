"""The page of an audit: a card a class, its best and worst descriptors with figures and the crops that chose them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit_table import best_and_worst, class_title, lead, marks, shown_figures, sum_up, worst_first
from pipeline.pages import render
from pipeline.pages.thumbnail import cut_thumbnails
from storage.blobs import read_blobs

CLASSES = 100
"""Classes on a page, those first of which the filter drops most: every picture is part of the page."""
READ_TOGETHER = 16
"""Images in memory at a time, as files."""


def audit_page(document: Mapping[str, Any], manifest: pa.Table, most: int) -> str:
    """A page of `audit_job`'s document; of each class the `most` best and as many worst descriptors by AUC.

    The `manifest` says where images lie. A crop whose image cannot be read is told by its number alone.
    """
    shown = worst_first(document)[:CLASSES]
    lines = [(told, best_and_worst(told, most)) for told in shown]
    pictures = _pictures([crop for _, rows in lines for each in rows for crop in each["best"]], manifest)
    further = len(document["classes"]) - len(shown)
    return render(
        "audit.html.j2",
        title=f"Descriptors {document['descriptors']}",
        lead=lead(document)[0],
        meaning=lead(document)[1],
        totals=sum_up(document),
        cards=[_card(told, rows, pictures) for told, rows in lines],
        further=f"{further:,} more classes are in the sheet (--csv)." if further else "",
    )


def _card(
    told: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], pictures: Mapping[tuple[str, int], str | None]
) -> dict[str, Any]:
    lines = []
    for each in rows:
        auc, removed, crops, nearest = shown_figures(each)
        found = [
            {
                "picture": pictures.get((crop["image"], crop["number"])),
                "title": f"{crop['image']}#{crop['number']}, cosine {crop['cosine']:.3f}",
            }
            for crop in each["best"]
        ]
        figures = {"auc": auc, "removed": removed, "crops": crops, "nearest": nearest}
        words = {"text": each["text"], "marks": marks(each), "dropped": each["dropped"]}
        lines.append(words | figures | {"best": found})
    hidden = len(told["descriptors"]) - len(rows)
    return {"title": class_title(told), "lines": lines, "hidden": f"{hidden:,} more between these" if hidden else ""}


def _pictures(crops: Sequence[Mapping[str, Any]], manifest: pa.Table) -> dict[tuple[str, int], str | None]:
    """Thumbnails by image and number of the crop; every image is read and decoded once."""
    wanted: dict[str, dict[int, list[int]]] = {}
    for crop in crops:
        wanted.setdefault(crop["image"], {})[crop["number"]] = crop["box"]
    listed = manifest.filter(pc.is_in(manifest["id"], value_set=pa.array(list(wanted), pa.string())))
    places = dict(zip(listed["id"].to_pylist(), listed["uri"].to_pylist(), strict=True))
    found: dict[tuple[str, int], str | None] = {}
    for identity, data in _read(places):
        boxes = wanted[identity]
        for number, picture in zip(boxes, cut_thumbnails(data, list(boxes.values())), strict=True):
            found[identity, number] = picture
    return found


def _read(places: Mapping[str, str]) -> Iterator[tuple[str, bytes | OSError]]:
    ids = list(places)
    for start in range(0, len(ids), READ_TOGETHER):
        some = ids[start : start + READ_TOGETHER]
        yield from zip(some, read_blobs([places[one] for one in some]), strict=True)
