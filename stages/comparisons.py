"""Comparisons of methods, two by two, on the images that all of them have predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.settings import EvaluateSettings
from stages.stage import Table
from stages.statistics import paired_interval, paired_p

if TYPE_CHECKING:
    from numpy import ndarray

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "method", "other")]
    + [(name, pa.float64()) for name in ("difference", "low", "high", "confidence")]
    + [(name, pa.int64()) for name in ("n10", "n01")]
    + [("p", pa.float64()), ("images", pa.int64())]
)


@dataclass(frozen=True)
class Right:
    """How often a method was right: `counts` [images] of its `draws` (crop seeds x draws of its own)."""

    counts: ndarray
    draws: int


def pair_keys(methods: Sequence[str]) -> list[str]:
    """The keys of the rows of `compare_methods`: places of the two in `methods`, such as "0-2"."""
    return [f"{first}-{second}" for first, second in combinations(range(len(methods)), 2)]


def compare_methods(right: Mapping[str, Right], settings: EvaluateSettings) -> list[dict[str, Any]]:
    """A row a pair of methods, of the columns of `SCHEMA`, in the order of `right`.

    `difference` is the accuracy of `method` less that of `other`, in -1..1, with its paired bootstrap interval; `n10`
    counts the images that `method` gets right more often than `other`, `n01` those where `other` does; `p` is
    McNemar's exact test. A method of several draws counts on each image by the share of its draws that are right:
    draws of one image say nothing of another, so images alone are resampled, or have their signs flipped. The mean over
    images is then also that of comparing seed with seed.
    """
    rows = []
    for key, (method, other) in zip(pair_keys(list(right)), combinations(right, 2), strict=True):
        one, two = right[method], right[other]
        unit = math.lcm(one.draws, two.draws)  # differences in whole units: integers compare without rounding
        differences = one.counts * (unit // one.draws) - two.counts * (unit // two.draws)
        low, high = paired_interval(differences, settings.bootstrap, settings.confidence)
        rows.append(
            {
                "key": key,
                "method": method,
                "other": other,
                "difference": float(differences.mean()) / unit,
                "low": low / unit,
                "high": high / unit,
                "confidence": settings.confidence,
                "n10": int((differences > 0).sum()),
                "n01": int((differences < 0).sum()),
                "p": paired_p(differences),
                "images": len(differences),
            }
        )
    return rows


def count_right(tables: Sequence[Table], known: pa.Table) -> Right:
    """How many of a method's score tables, one a draw, are right on each image; `known` has its `key` and `class`."""
    import numpy as np

    counts = np.zeros(len(known), np.int64)
    for table in tables:
        predicted = pc.list_element(table.keeper.read(keys=known["key"], columns=["classes"])["classes"], 0)
        counts += pc.equal(predicted, known["class"]).to_numpy()
    return Right(counts, len(tables))
