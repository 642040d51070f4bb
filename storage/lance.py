"""LanceDB as a projection of the shards: tables kept by upserts of rows and deletes of ids no longer wanted.

One database a feature fingerprint; it can be removed and projected again at any time. One process at a time
commits. The table schemas are in `storage.schemas`; lancedb itself is imported when a database is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.filesystems import is_object_uri, lance_options
from storage.lance_filter import Filter
from storage.markers import drop_marker

UPSERT_ROWS = 20_000  # a commit each: 20 MB of fp16 vectors of 512


class Projection:
    """The LanceDB database at `uri`, a folder or `s3://`, `gs://`; a read sees the latest commit."""

    def __init__(self, uri: str) -> None:
        import lancedb

        self.uri = uri
        options = lance_options(uri) if is_object_uri(uri) else None
        # Without an interval an open table never sees what other processes commit.
        self._database = lancedb.connect(uri, read_consistency_interval=timedelta(0), storage_options=options)

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._database.list_tables().tables)

    def upsert(self, table: str, schema: pa.Schema, rows: pa.Table) -> None:
        """Insert rows, or replace those of the same `id`; a missing table is made, even for no rows.

        `rows` has the schema's columns, in any order. The table's marker is dropped first. ValueError for a
        repeated or missing id, for other columns, and for a table that was made with another schema or other
        metadata (another model): its rows must not mix with these.
        """
        rows = _conform(rows, schema, table)
        drop_marker(self.uri, table)
        opened = self._open(table, schema)
        for start in range(0, rows.num_rows, UPSERT_ROWS):
            merge = opened.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(rows.slice(start, UPSERT_ROWS))

    def delete_unwanted(self, table: str, wanted_ids: pa.Array | pa.ChunkedArray) -> int:
        """Delete the rows whose id is not wanted, in one commit; returns how many. Drops the marker first."""
        ids = self.ids(table)
        unwanted = len(ids) - pc.sum(pc.is_in(ids, wanted_ids)).as_py() if len(ids) else 0
        if unwanted == 0:
            return 0
        drop_marker(self.uri, table)
        opened = self._existing(table)
        if len(wanted_ids) == 0:
            opened.delete("true")
        else:
            wanted = pa.table({"id": wanted_ids})
            opened.merge_insert("id").when_not_matched_by_source_delete().execute(wanted)
        return unwanted

    def ids(self, table: str) -> pa.ChunkedArray:
        """The ids of all rows; none for a missing table."""
        opened = self._existing(table)
        if opened is None:
            return pa.chunked_array([], pa.string())
        return opened.search().select(["id"]).to_arrow()["id"]

    def described(self, table: str) -> pa.Table:
        """All rows without their vectors; no rows and no columns for a missing table."""
        opened = self._existing(table)
        if opened is None:
            return pa.table({})
        return opened.search().select([name for name in opened.schema.names if name != "vector"]).to_arrow()

    def search(
        self, table: str, vector: Sequence[float], *, k: int, where: Filter | None = None
    ) -> list[dict[str, object]]:
        """The k rows most similar to `vector` [d], best first: columns but the vector, and `similarity`.

        Every row that passes the filter is compared, no index is asked. `similarity` is the cosine, from
        -1 to 1; the query is rounded to fp16 like the rows, so it is right to about 1e-3. Rows with a zero
        vector are never found. LookupError for a missing table, ValueError for a vector of another length or
        without a direction.
        """
        opened = self._existing(table)
        if opened is None:
            raise LookupError(f"{self.uri} has no table {table!r}; it has {self.tables()}")
        names = [name for name in opened.schema.names if name != "vector"]
        query = opened.search(_unit(vector, opened.schema.field("vector").type.list_size), "vector")
        query = query.distance_type("cosine").bypass_vector_index().select([*names, "_distance"]).limit(k)
        if where is not None:
            query = query.where(where.sql, prefilter=True)
        hits = query.to_list()
        return [{**{name: hit[name] for name in names}, "similarity": _cosine(hit["_distance"])} for hit in hits]

    def _existing(self, table: str) -> Any | None:
        """The table, opened; None where there is none, or only what a removal that was cut short left of it."""
        try:
            return self._database.open_table(table)
        except ValueError as error:
            if f"'{table}' was not found" not in str(error):
                raise
            return None

    def _open(self, table: str, schema: pa.Schema) -> Any:
        opened = self._existing(table)
        if opened is None:
            return self._database.create_table(table, schema=schema)
        if not opened.schema.equals(schema, check_metadata=True):
            raise ValueError(
                f"table {table!r} of {self.uri} was made as\n{opened.schema}\n"
                f"and cannot take rows of\n{schema}\n"
                "Remove that database, or use another one: it is rebuilt from the shards."
            )
        return opened


def _conform(rows: pa.Table, schema: pa.Schema, table: str) -> pa.Table:
    """The rows with exactly the schema's columns, checked: LanceDB itself inserts a repeated new id twice."""
    if sorted(rows.column_names) != sorted(schema.names):
        raise ValueError(f"rows for table {table!r} need the columns {schema.names}, got {rows.column_names}")
    if rows["id"].null_count or pc.count_distinct(rows["id"]).as_py() != rows.num_rows:
        raise ValueError(f"rows for table {table!r} need one id each: some are null or repeated")
    try:
        return rows.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise ValueError(f"rows for table {table!r} do not fit its columns: {error}") from error


def _unit(vector: Sequence[float], d: int) -> list[float]:
    """The query at length 1, where fp16 neither overflows nor loses small entries."""
    import numpy as np

    query = np.asarray(vector, np.float64)
    if query.shape != (d,):
        raise ValueError(f"the table holds vectors of {d} numbers, the query has the shape {list(query.shape)}")
    length = float(np.linalg.norm(query))
    if not 0.0 < length < float("inf"):
        raise ValueError(f"a query of length {length} has no direction")
    return (query / length).tolist()


def _cosine(distance: float) -> float:
    return min(1.0, max(-1.0, 1.0 - distance))  # rounding takes the distance of equal vectors a hair below 0
