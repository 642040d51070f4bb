"""Rows that tables lack, on their way to the workers: made into dicts a few at a time, since there may be millions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.stage import Table

AT_ONCE = 1000


class LackingRows:
    """Rows with a column `key`, and which of the tables lack each of them."""

    def __init__(self, rows: pa.Table, tables: Sequence[Table]):
        self.rows = rows
        of: dict[int, pa.ChunkedArray] = {}
        for table in tables:
            if id(table.missing) not in of:
                of[id(table.missing)] = pc.is_in(rows["key"], value_set=table.missing)
        self.lacking = {table.name: of[id(table.missing)] for table in tables}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows in order, as dicts with the names of the tables under `lacks`."""
        for start in range(0, len(self.rows), AT_ONCE):
            lacking = [(name, mask.slice(start, AT_ONCE).to_pylist()) for name, mask in self.lacking.items()]
            for number, row in enumerate(self.rows.slice(start, AT_ONCE).to_pylist()):
                yield row | {"lacks": [name for name, mask in lacking if mask[number]]}
