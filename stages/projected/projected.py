"""A LanceDB table as it should be, beside what it holds: which rows to write, and which to delete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from stages.stage import Table


@dataclass(frozen=True)
class Sources:
    """The complete tables that a projection shows, and the manifest rows that it shows of them."""

    whole: Table
    views: Mapping[str, Table]
    """view sets whose crops are shown, by name"""
    texts: Table
    caches: Sequence[Table]
    """tables of `build_caches`, whose plans are `stages.build_caches.CacheSource`"""
    descriptors: list[dict[str, Any]]
    """id, class, set, number and text of each"""
    images: pa.Table
    """the manifest's rows of the images that are shown"""
    seen: Mapping[str, pa.Table]
    """those of the images whose crops are shown, by view set"""


class Projected(Protocol):
    """Made of `Sources` and the `storage.lance.Projection`. Rows come a commit at a time, so that memory is bounded."""

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Rows, with vectors, that the table lacks or holds otherwise; at most `UPSERT_ROWS` at a time."""

    def unwanted(self) -> Iterator[pa.Array]:
        """Ids that the table holds and should not; at most `DELETE_ROWS` at a time. Asked once all rows are written."""


def stale_rows(rows: pa.Table, present: pa.Table, on: str, compared: Sequence[str]) -> pa.Table:
    """The rows that `present` has not under their `on`, or has otherwise in one of the compared columns."""
    if not len(present):
        return rows
    places = pc.index_in(rows[on], value_set=present[on])
    differs = pc.is_null(places)
    for name in compared:
        held = present[name].take(places)
        one_is_null = pc.xor(pc.is_valid(rows[name]), pc.is_valid(held))
        differs = pc.or_(differs, pc.fill_null(pc.or_kleene(pc.not_equal(rows[name], held), one_is_null), False))
    return rows.filter(differs)


def not_among(ids: pa.ChunkedArray, wanted: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids that are not wanted, in their order."""
    return ids.filter(pc.invert(pc.is_in(ids, value_set=wanted)))


def in_parts(column: pa.ChunkedArray, size: int) -> Iterator[pa.ChunkedArray]:
    """A column in parts of at most so many."""
    for start in range(0, len(column), size):
        yield column.slice(start, size)


def gathered(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables, of at most `UPSERT_ROWS` where no part has more."""
    from storage.lance import UPSERT_ROWS

    held: list[pa.Table] = []
    for part in parts:
        if held and sum(map(len, held)) + len(part) > UPSERT_ROWS:
            yield pa.concat_tables(held)
            held = []
        held.append(part)
    if held:
        yield pa.concat_tables(held)
