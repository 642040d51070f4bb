"""Table `crops`: every crop of every view set with its box and feature.

Crops are many, so they are decided on by image: those of an image and view set are written, and deleted, in one commit,
so the first of them stands for all, and only the first ones are ever listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from stages.projected.projected import Sources, in_parts, not_among, stale_rows
from stages.stage import Table

if TYPE_CHECKING:
    from storage.lance import Projection

_COMPARED = ("class", "split")


class ProjectedCrops:
    """A row a crop; its id is `IMAGE KEY#VIEW#NUMBER`."""

    def __init__(self, sources: Sources, database: Projection):
        self.sources = sources
        self.database = database

    def stale(self, schema: pa.Schema) -> Iterator[pa.Table]:
        from storage.lance import UPSERT_ROWS

        for view, table in self.sources.views.items():
            lacking = stale_rows(self.sources.seen[view], self._shown(view), "key", _COMPARED)
            at_once = max(1, UPSERT_ROWS // _crops_an_image(table))
            for start in range(0, len(lacking), at_once):
                yield _rows(lacking.slice(start, at_once), view, table).select(schema.names)

    def unwanted(self) -> Iterator[pa.Array]:
        from storage.lance import DELETE_ROWS

        for view, table in self.sources.views.items():
            count = _crops_an_image(table)
            gone = not_among(self._shown(view)["key"], self.sources.seen[view]["key"])
            for keys in in_parts(gone, max(1, DELETE_ROWS // count)):
                yield _crop_ids(keys, view, count)

    def _shown(self, view: str) -> pa.Table:
        """Key, class and split of the images whose crops of a view set the database holds."""
        from storage.lance_filter import where_equal

        first = self.database.described("crops", ["id", *_COMPARED], where_equal({"view": view, "number": 0}))
        keys = pc.utf8_slice_codeunits(first["id"], 0, -len(f"#{view}#0"))
        return first.drop_columns("id").append_column("key", keys)


def _rows(images: pa.Table, view: str, table: Table) -> pa.Table:
    import numpy as np

    from storage.schemas import fixed_list, to_numpy

    count = _crops_an_image(table)
    stored = table.keeper.read(images["key"], ["boxes", "vectors"])
    boxes, vectors = to_numpy(stored["boxes"], (count, 4)), to_numpy(stored["vectors"], (count, -1))
    each, rows = _each(len(images), count), len(images) * count
    return pa.table(
        {name: images[of].take(each) for name, of in (("image", "id"), ("class", "class"), ("split", "split"))}
        | {
            "id": _crop_ids(images["key"], view, count),
            "view": pa.repeat(view, rows),
            "kind": pa.repeat("raw", rows),
            "number": pa.array(np.tile(np.arange(count, dtype=np.int32), len(images))),
            "box": fixed_list(boxes.reshape(rows, 4)),
            "vector": fixed_list(vectors.reshape(rows, -1)),
        }
    )


def _crop_ids(keys: pa.ChunkedArray, view: str, count: int) -> pa.Array:
    """`key#view#number` for every crop of these images."""
    import numpy as np

    numbers = pa.array(np.tile(np.arange(count), len(keys))).cast(pa.string())
    images = keys.take(_each(len(keys), count)).combine_chunks()
    return pc.binary_join_element_wise(images, view, numbers, "#")


def _each(images: int, count: int) -> pa.Array:
    """Places 0, 0, ..., 1, 1, ...: that of every image, `count` times."""
    import numpy as np

    return pa.array(np.repeat(np.arange(images), count))


def _crops_an_image(table: Table) -> int:
    return table.plan[0].crops
