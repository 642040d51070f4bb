"""Indexes of a LanceDB table: its vectors in partitions (IVF_FLAT, cosine), its ids in a tree.

A vector index keeps every vector as it is, so all that it may lose is a row of a partition that was not looked at. Rows
that it does not cover are compared one by one, and are found all the same. A row with a zero vector has no direction
and is found neither with an index nor without. Functions take the opened table of `storage.lance`.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

INDEX_ROWS = 50_000
"""Fewer vectors are compared one by one: a tenth of a second."""
KEYED_ROWS = 100_000
"""Fewer ids are looked through one by one when rows are upserted or deleted."""
FEWEST, MOST = 16, 8192
"""Partitions."""
PROBED_ROWS, SHARE = 24_000, 12
"""A query looks at partitions of about so many rows, and at one in so many: see `python -m benchmarks.query`."""
SAMPLE, ITERATIONS = 64, 20
"""Vectors a partition that the partitions are learnt from, and rounds of k-means."""

_NAME = re.compile(r"vector_ivf(\d+)")


class VectorIndex(NamedTuple):
    """An index of the vectors, as it stands."""

    name: str
    partitions: int
    uncovered: int
    """rows that it does not cover"""

    def probes(self, rows: int, passing: int) -> int:
        """How many partitions a query looks at, nearest first, where so many of the table's rows pass its filter."""
        unfiltered = max(PROBED_ROWS * self.partitions / rows, self.partitions / SHARE)
        return min(self.partitions, math.ceil(unfiltered * rows / passing))


def vector_index(table: Any) -> VectorIndex | None:
    """The index of the table's vectors; None where there is none."""
    for index in table.list_indices():
        if found := _NAME.fullmatch(index.name):
            return VectorIndex(index.name, int(found[1]), table.index_stats(index.name).num_unindexed_rows)
    return None


def partitions_of(rows: int) -> int:
    """Partitions for so many rows: four times as many as rows in each. The smaller they are, the less is looked at
    for the same recall, and the longer they take to make."""
    return min(MOST, max(FEWEST, 2 * math.isqrt(rows)))


def fits(index: VectorIndex, rows: int) -> bool:
    """Whether the index was made for about so many rows: a fourth to four times as many."""
    return index.partitions / 2 <= partitions_of(rows) <= index.partitions * 2


def index_vectors(table: Any) -> None:
    """Make the index of the table's vectors, in place of one that is there; none where too few have a direction."""
    from lancedb.index import IvfFlat

    drop_vector_index(table)
    partitions = partitions_of(table.count_rows())
    config = IvfFlat(distance_type="cosine", num_partitions=partitions, sample_rate=SAMPLE, max_iterations=ITERATIONS)
    try:
        table.create_index("vector", config=config, name=f"vector_ivf{partitions}")
    except RuntimeError as error:
        if "KMeans cannot train" not in str(error):
            raise


def drop_vector_index(table: Any) -> bool:
    """Remove the index of the vectors; returns whether there was one."""
    index = vector_index(table)
    if index is not None:
        table.drop_index(index.name)
    return index is not None


def index_ids(table: Any) -> None:
    """Make the index of the table's ids, unless it is there: without one every upsert looks through all of them."""
    from lancedb.index import BTree

    if not any(index.columns == ["id"] for index in table.list_indices()):
        table.create_index("id", config=BTree(), name="id_tree")
