"""Table `images`: every image with its global feature, as the manifest places and labels it now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from stages.projected.projected import Sources, in_parts, not_among, stale_rows

if TYPE_CHECKING:
    from storage.lance import Projection

_COMPARED = ("version", "uri", "class", "split")


class ProjectedImages:
    """A row an image; what is compared is small beside a vector, and all read at once."""

    def __init__(self, sources: Sources, database: Projection):
        self.sources = sources
        present = database.described("images", ["id", *_COMPARED]) if database.count("images") else pa.table({})
        self.lacking = stale_rows(sources.images, present, "id", _COMPARED)
        self.gone = (
            not_among(present["id"], sources.images["id"]) if len(present) else pa.chunked_array([], pa.string())
        )

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        from storage.lance import UPSERT_ROWS
        from storage.schemas import fixed_list, to_numpy

        for start in range(0, len(self.lacking), UPSERT_ROWS):
            part = self.lacking.slice(start, UPSERT_ROWS)
            stored = self.sources.whole.keeper.read(part["key"], ["width", "height", "vectors"])
            columns = {name: part[name] for name in ("id", *_COMPARED)}
            columns |= {name: stored[name] for name in ("width", "height")}
            columns["vector"] = fixed_list(to_numpy(stored["vectors"], (-1,)))
            yield pa.table(columns).select(schema.names)

    def unwanted(self) -> Iterator[pa.ChunkedArray]:
        from storage.lance import DELETE_ROWS

        return in_parts(self.gone, DELETE_ROWS)
