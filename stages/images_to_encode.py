"""Which images are encoded, and which of them with which view set: what the job's methods read.

Of the query split every image; of the support split the shots alone, those of all seeds; of the validation split every
labelled image, where a method searches its settings there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from stages.methods.few_shot import FewShotMethod
from stages.methods.method import Method
from stages.shots import draw_shots


@dataclass(frozen=True)
class ImagesToEncode:
    """Keys in the manifest's order: of the whole image, and by view set. What is the same is one object."""

    whole: pa.ChunkedArray
    views: Mapping[str, pa.ChunkedArray]
    augmentations: frozenset[str]
    """view sets of which a method reads the shots' mean alone: one draw of these is enough"""


def images_to_encode(manifest: pa.Table, methods: Sequence[Method], views: Sequence[str]) -> ImagesToEncode:
    """What these methods read of these view sets; a set that no method reads is encoded of the query split."""
    few_shot = [method for method in methods if isinstance(method, FewShotMethod)]
    parts: dict[frozenset[str], pa.ChunkedArray] = {}

    def keys(*splits: str) -> pa.ChunkedArray:
        chosen = frozenset(splits)
        if chosen not in parts:
            parts[chosen] = _keys(manifest, chosen, few_shot)
        return parts[chosen]

    by_view, augmentations = {}, set()
    for view in views:
        readers = [method for method in few_shot if getattr(method, "views", None) == view]
        only_shots = any(method.augmentations == view for method in few_shot)
        read_of_query = not only_shots or any(getattr(method, "views", None) == view for method in methods)
        if not read_of_query:
            augmentations.add(view)
        by_view[view] = keys(
            *(["query"] if read_of_query else []),
            *(["support"] if readers or only_shots else []),
            *(["validation"] if any(method.search is not False for method in readers) else []),
        )
    validated = any(method.search is not False for method in few_shot)
    whole = keys("query", *["support"] * bool(few_shot), *["validation"] * validated)
    return ImagesToEncode(whole, by_view, frozenset(augmentations))


def split_keys(manifest: pa.Table, split: str) -> pa.ChunkedArray:
    """The keys of a split's images, in the manifest's order."""
    return manifest["key"].filter(pc.equal(manifest["split"], split))


def _keys(manifest: pa.Table, splits: frozenset[str], few_shot: Sequence[FewShotMethod]) -> pa.ChunkedArray:
    chosen = pc.and_(pc.equal(manifest["split"], "query"), "query" in splits)
    if "validation" in splits:
        labelled = pc.and_(pc.equal(manifest["split"], "validation"), pc.is_valid(manifest["class"]))
        chosen = pc.or_(chosen, labelled)
    if "support" in splits:
        chosen = pc.or_(chosen, pc.is_in(manifest["key"], value_set=_shots(manifest, few_shot)))
    return manifest["key"].filter(chosen)


def _shots(manifest: pa.Table, few_shot: Sequence[FewShotMethod]) -> pa.Array:
    """Keys of all images that are a shot under any number of shots and seed."""
    most: dict[int, int] = {}
    for method in few_shot:
        for seed in method.seeds:
            most[seed] = max(most.get(seed, 0), *method.shots)
    drawn = [draw_shots(manifest, shots, seed)["key"] for seed, shots in most.items()]
    chunks = [chunk for keys in drawn for chunk in keys.chunks]
    return pc.unique(pa.chunked_array(chunks, pa.string()))
