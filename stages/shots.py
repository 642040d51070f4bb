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
_KEPT = 8


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
    draws = _mixed(_hashes(images["id"]), seed)
    order = np.lexsort((draws, owners)) if len(draws) else np.zeros(0, np.int64)
    owners = owners[order]
    first = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]) if len(owners) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[first, len(owners)])
    shot = np.arange(len(owners)) - np.repeat(first, lengths)
    drawn = images.take(pa.array(order)).append_column("shot", pa.array(shot, pa.int32()))
    _DRAWN[:] = [(manifest, seed, drawn), *_DRAWN[: _KEPT - 1]]
    return drawn


def _hashes(ids: pa.ChunkedArray) -> np.ndarray:
    """A number of 64 bits for each id."""
    return np.frombuffer(
        b"".join(hashlib.blake2b(one.encode(), digest_size=8).digest() for one in ids.to_pylist()), "<u8"
    )


def _mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of 64 bits that are others for every seed: the hash of the seed added, then splitmix64's finaliser."""
    salt = np.frombuffer(hashlib.blake2b(f"shots {seed}".encode(), digest_size=8).digest(), "<u8")
    mixed = hashes + salt  # modulo 2**64, as all that follows
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
