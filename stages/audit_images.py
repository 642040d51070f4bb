"""Which stored images an audit reads: some on which descriptors are judged, others on which a filter is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from stages.audit_filter import FEWEST
from storage.shards import Keys

SPLITS = ("support", "validation", "query")


@dataclass(frozen=True)
class Part:
    """Labelled images: `key`, `id` and `class` (the spoken name) of each, and what they are."""

    images: pa.Table
    what: str

    def __len__(self) -> int:
        return len(self.images)


def choose_parts(
    manifest: pa.Table, names: Mapping[str, str], classes: Collection[str], stored: Keys, split: str | None
) -> tuple[Part, Part | None]:
    """The images to judge descriptors on, and others to measure a filter on, if there are any. They share none.

    Of each split those count that have a label among `classes` (ids) and a `stored` row. Judged is on `split`; by
    default on the support split where it has `FEWEST` images of every class, else on validation, else on query. The
    query split is halved by a hash of the image's id, which neither new images nor a copied data set change: half is
    judged on, half measured on. Otherwise validation is measured on, or query. ValueError where none is left to judge.
    """
    of = {name: _labelled(manifest, names, classes, stored, name) for name in SPLITS}
    if split is None:
        split = _default(of, {names[one] for one in classes})
    if not len(of[split]):
        raise ValueError(f"no labelled image of the {split} split has a stored feature")
    if split == "query":
        first = pa.array([_in_first_half(one) for one in of["query"]["id"].to_pylist()], pa.bool_())
        halves = [of["query"].filter(side) for side in (first, pc.invert(first))]
        if not len(halves[0]):
            raise ValueError("the query split has too few labelled images to be halved")
        measuring = Part(halves[1], "the other half of the query split") if len(halves[1]) else None
        return Part(halves[0], "half of the query split"), measuring
    other = next((name for name in SPLITS[SPLITS.index(split) + 1 :] if len(of[name])), None)
    measuring = None if other is None else Part(of[other], f"the {other} split")
    return Part(of[split], f"the {split} split"), measuring


def _default(of: Mapping[str, pa.Table], spoken: Collection[str]) -> str:
    counts = pc.value_counts(of["support"]["class"]).to_pylist()
    enough = {count["values"] for count in counts if count["counts"] >= FEWEST}
    if enough >= set(spoken):
        return "support"
    return "validation" if len(of["validation"]) else "query"


def _labelled(
    manifest: pa.Table, names: Mapping[str, str], classes: Collection[str], stored: Keys, split: str
) -> pa.Table:
    wanted = pc.and_(
        pc.equal(manifest["split"], split),
        pc.and_(
            pc.is_in(manifest["class"], value_set=pa.array(list(classes), pa.string())),
            pc.is_in(manifest["key"], value_set=stored),
        ),
    )
    images = manifest.select(["key", "id", "class"]).filter(wanted)
    places = pc.index_in(images["class"], value_set=pa.array(list(names), pa.string()))
    return images.set_column(2, "class", pa.array(list(names.values()), pa.string()).take(places.combine_chunks()))


def _in_first_half(identity: str) -> bool:
    return hashlib.blake2b(f"audit {identity}".encode(), digest_size=1).digest()[0] < 128
