"""Support sets: which labelled images of the support split are a class's first, second, ... shot under a seed.

The images of a class are ordered by a hash of seed and id, so the sets of a seed are nested (the first four shots are
among the first eight), and neither other classes nor the order of listing change them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_DRAWN: list[tuple[pa.Table, int, pa.Table]] = []
"""Manifests, seeds, and all shots in their order: a plan asks once a method, seed and number of shots."""
_KEPT = 16


def draw_shots(manifest: pa.Table, shots: int, seed: int) -> pa.Table:
    """The first `shots` images of each class: columns key, id, class, shot (int32, from 0), by class and shot.

    A class with fewer labelled images in the split `support` has those, one without any has none.
    """
    return (drawn := _all_shots(manifest, seed)).filter(pc.less(drawn["shot"], shots))


def shots_by_class(manifest: pa.Table) -> dict[str, int]:
    """How many labelled images the support split has of each class that it has any of."""
    support = manifest["class"].filter(pc.equal(manifest["split"], "support")).drop_null()
    counts = pc.value_counts(support)
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))


def tell_of_scarce(manifest: pa.Table, classes: tuple[str, ...], shots: int) -> str | None:
    """A line on the classes that have fewer images than that many shots; None where all have enough."""
    found = shots_by_class(manifest)
    scarce = [name for name in classes if found.get(name, 0) < shots]
    if not scarce:
        return None
    named = ", ".join(f"{name} ({found.get(name, 0)})" for name in scarce[:5])
    more = ", ..." if len(scarce) > 5 else ""
    return (
        f"{len(scarce):,} of {len(classes):,} classes have fewer than {shots} images in the support split "
        f"({named}{more}): those are all their shots"
    )


def _all_shots(manifest: pa.Table, seed: int) -> pa.Table:
    for known, of_seed, drawn in _DRAWN:
        if known is manifest and of_seed == seed:
            return drawn
    labelled = pc.and_(pc.equal(manifest["split"], "support"), pc.is_valid(manifest["class"]))
    images = manifest.select(["key", "id", "class"]).filter(labelled)
    codes = images["class"].combine_chunks().dictionary_encode()
    owners = codes.indices.to_numpy(zero_copy_only=False)
    salt = f"shots {seed} ".encode()
    hashes = (hashlib.blake2b(salt + one.encode(), digest_size=8).digest() for one in images["id"].to_pylist())
    draws = np.frombuffer(b"".join(hashes), ">u8")
    order = np.lexsort((draws, owners)) if len(draws) else np.zeros(0, np.int64)
    owners = owners[order]
    first = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]) if len(owners) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[first, len(owners)])
    shot = np.arange(len(owners)) - np.repeat(first, lengths)
    drawn = images.take(pa.array(order)).append_column("shot", pa.array(shot, pa.int32()))
    _DRAWN[:] = [(manifest, seed, drawn), *_DRAWN[: _KEPT - 1]]
    return drawn
