"""Table `descriptors`: every description of a class and set with its text feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from stages.encode_text import text_key
from stages.projected.projected import Sources, in_parts, not_among, stale_rows

if TYPE_CHECKING:
    from storage.lance import Projection

_ROW = pa.schema([(name, pa.string()) for name in ("id", "class", "set", "text")] + [("number", pa.int32())])
_COMPARED = ("class", "text")


class ProjectedDescriptors:
    """A row a class, set and text."""

    def __init__(self, sources: Sources, database: Projection):
        self.sources = sources
        rows = pa.Table.from_pylist(sources.descriptors, _ROW)
        present = database.described("descriptors", ["id", *_COMPARED]) if database.count("descriptors") else None
        self.lacking = rows if present is None else stale_rows(rows, present, "id", _COMPARED)
        self.gone = pa.chunked_array([], pa.string()) if present is None else not_among(present["id"], rows["id"])

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        import numpy as np

        from storage.lance import UPSERT_ROWS
        from storage.schemas import fixed_list, to_numpy

        for start in range(0, len(self.lacking), UPSERT_ROWS):
            part = self.lacking.slice(start, UPSERT_ROWS)
            keys = [text_key(text) for text in part["text"].to_pylist()]
            stored = self.sources.texts.keeper.read(keys, ["vector"])
            vectors = fixed_list(to_numpy(stored["vector"], (-1,)).astype(np.float16))
            yield part.append_column("vector", vectors).select(schema.names)

    def unwanted(self) -> Iterator[pa.ChunkedArray]:
        from storage.lance import DELETE_ROWS

        return in_parts(self.gone, DELETE_ROWS)
