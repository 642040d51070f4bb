"""LanceDB as a projection of the shards: tables kept by upserts of rows and deletes of ids no longer wanted.

One database a feature fingerprint; it can be removed and projected again at any time. One process at a time
commits. Schemas are in `storage.schemas`, filters in `storage.lance_filter` and `storage.lance_where`, indexes in
`storage.lance_index`, tags in `storage.lance_versions`; lancedb itself is imported when a database is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import lance_index, lance_versions
from storage.filesystems import is_object_uri, lance_options
from storage.lance_filter import Filter, where_in
from storage.markers import drop_marker

UPSERT_ROWS = 20_000  # a commit each: 20 MB of fp16 vectors of 512
DELETE_ROWS = 5_000  # a commit each: so many ids make half a megabyte of SQL


class Projection:
    """The LanceDB database at `uri`, a folder or `s3://`, `gs://`; a read sees the latest commit."""

    def __init__(self, uri: str) -> None:
        import lancedb

        self.uri = uri
        self._grown: dict[str, int] = {}
        self._searched: dict[str, tuple[int, lance_index.VectorIndex | None, int]] = {}
        options = lance_options(uri) if is_object_uri(uri) else None
        # Without an interval an open table never sees what other processes commit.
        self._database = lancedb.connect(uri, read_consistency_interval=timedelta(0), storage_options=options)

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._database.list_tables().tables)

    def schema(self, table: str) -> pa.Schema:
        """A table's columns and metadata. LookupError where there is none of that name."""
        return self._wanted(table).schema

    def upsert(self, table: str, schema: pa.Schema, rows: pa.Table) -> None:
        """Insert rows, or replace those of the same `id`; a missing table is made, even for no rows.

        `rows` has the schema's columns, in any order. Up to `UPSERT_ROWS` of them are one commit: all or none is
        there. The table's marker is dropped first. ValueError for a repeated or missing id, for other columns, and for
        a table that was made with another schema or other metadata (other weights), the model's name aside: its rows
        must not mix with these.
        """
        rows, opened = self._begin(table, schema, rows)
        for start in range(0, rows.num_rows, UPSERT_ROWS):
            part = rows.slice(start, UPSERT_ROWS)
            opened.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(part)
            self._grown[table] = self._grown.get(table, 0) + part.num_rows
            # What the tree of ids does not cover is looked through by every upsert.
            if self._grown[table] >= max(lance_index.KEYED_ROWS, opened.count_rows() // 20):
                self.merge_files(table)

    def append(self, table: str, schema: pa.Schema, rows: pa.Table) -> None:
        """`upsert` for rows whose ids the table does not hold, which is for the caller to know.

        Time and memory do not depend on how many rows there are, which those of an upsert do.
        """
        rows, opened = self._begin(table, schema, rows)
        for start in range(0, rows.num_rows, UPSERT_ROWS):
            opened.add(rows.slice(start, UPSERT_ROWS))

    def delete(self, table: str, ids: pa.Array | pa.ChunkedArray) -> int:
        """Delete the rows of these ids, `DELETE_ROWS` a commit; returns how many there were. Drops the marker first."""
        opened = self._existing(table)
        if opened is None or len(ids) == 0:
            return 0
        drop_marker(self.uri, table)
        before = opened.count_rows()
        for start in range(0, len(ids), DELETE_ROWS):
            opened.delete(where_in("id", ids[start : start + DELETE_ROWS].to_pylist()).sql)
        return before - opened.count_rows()

    def drop(self, table: str) -> None:
        """Remove a table, marker first; harmless where there is none."""
        drop_marker(self.uri, table)
        if table in self.tables():
            self._database.drop_table(table)

    def ids(self, table: str) -> pa.ChunkedArray:
        """The ids of all rows; none for a missing table."""
        if self._existing(table) is None:
            return pa.chunked_array([], pa.string())
        return self.described(table, ["id"])["id"]

    def count(self, table: str) -> int:
        """How many rows a table has; none for a missing one."""
        opened = self._existing(table)
        return 0 if opened is None else opened.count_rows()

    def described(self, table: str, columns: Sequence[str] | None = None, where: Filter | None = None) -> pa.Table:
        """Rows without their vectors, all or those that pass a filter; nothing at all for a missing table.

        `columns` are the columns wanted, `vector` among them if it is named; KeyError for one that is not there.
        """
        reader = self._reader(table, columns, where)
        return pa.table({}) if reader is None else reader.read_all()

    def batches(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The same of all rows, some thousands at a time: the table as it was at the first, whatever changes since."""
        for batch in self._reader(table, columns, None) or ():
            yield pa.table(batch)

    def search(
        self,
        table: str,
        vector: Sequence[float],
        *,
        k: int,
        where: Filter | None = None,
        at_least: float = -1.0,
        exact: bool = False,
    ) -> list[dict[str, object]]:
        """The k rows most similar to `vector` [d], best first: columns but the vector, and `similarity`.

        Rows must pass the filter, and be similar by `at_least`. Where the table has an index (`build_index`) and the
        filter leaves 50,000 rows or more, the nearest partitions are looked at, as many as hold 24,000 such rows and
        a twelfth of all: a few of the true k may be missed, and `exact` compares every row instead. `similarity` is the
        cosine, from -1 to 1; the query is rounded to fp16 like the rows, so it is right to about 1e-3. Rows with a
        zero vector are never found. LookupError for a missing table, ValueError for a vector of another length or
        without a direction.
        """
        opened = self._wanted(table)
        names = [name for name in opened.schema.names if name != "vector"]
        query = opened.search(_unit(vector, opened.schema.field("vector").type.list_size), "vector")
        query = query.distance_type("cosine").select([*names, "_distance"]).limit(k)
        index, rows = (None, 0) if exact else self._indexed(table, opened)
        passing = rows
        if where is not None:
            query = query.where(where.sql, prefilter=True)
            passing = opened.count_rows(where.sql) if index else rows
        if index is None or passing < max(lance_index.INDEX_ROWS, k):
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(index.probes(rows, passing))
        hits = [(hit, _cosine(hit["_distance"])) for hit in query.to_list()]
        return [
            {**{name: hit[name] for name in names}, "similarity": similarity}
            for hit, similarity in hits
            if similarity >= at_least
        ]

    def _indexed(self, table: str, opened: Any) -> tuple[lance_index.VectorIndex | None, int]:
        """The table's index and number of rows, remembered as long as nobody commits: asking takes milliseconds."""
        version, known = opened.version, self._searched.get(table)
        if known is None or known[0] != version:
            known = self._searched[table] = (version, lance_index.vector_index(opened), opened.count_rows())
        return known[1:]

    def build_index(self, table: str) -> int:
        """See that an index covers the table's vectors; returns how many rows it does not cover, which should be none.

        One that was made for a table of another size is made anew. LookupError for a missing table.
        """
        opened = self._wanted(table)
        index = lance_index.vector_index(opened)
        if index is None or not lance_index.fits(index, opened.count_rows()):
            lance_index.index_vectors(opened)
        elif index.uncovered:
            lance_versions.merge_files(opened)
        index = lance_index.vector_index(opened)
        return opened.count_rows() if index is None else index.uncovered

    def drop_index(self, table: str) -> None:
        """Remove the index of the table's vectors: every search compares all rows. Harmless where there is none."""
        lance_index.drop_vector_index(self._wanted(table))

    def merge_files(self, table: str) -> None:
        """Merge a table's files, take new rows into its indexes, remove versions older than every tag.

        A large table gets an index of its ids, so that upserts need not look through all of them.
        """
        opened = self._wanted(table)
        self._grown.pop(table, None)
        if opened.count_rows() >= lance_index.KEYED_ROWS:
            lance_index.index_ids(opened)
        lance_versions.merge_files(opened)

    def tag_run(self, run: str) -> None:
        """Tag every table as what `run` left: LanceDB's `checkout("run-ID")` reads that again. Ten tags are kept."""
        for table in self.tables():
            lance_versions.tag_version(self._wanted(table), run)

    def _begin(self, table: str, schema: pa.Schema, rows: pa.Table) -> tuple[pa.Table, Any]:
        """The rows as the table takes them, and the table, whose marker is dropped."""
        rows = _conform(rows, schema, table)
        drop_marker(self.uri, table)
        return rows, self._open(table, schema)

    def _reader(self, table: str, columns: Sequence[str] | None, where: Filter | None) -> pa.RecordBatchReader | None:
        opened = self._existing(table)
        if opened is None:
            return None
        names = opened.schema.names
        if unknown := set(columns or ()) - set(names):
            raise KeyError(f"table {table!r} has no columns {sorted(unknown)}; it has {names}")
        query = opened.search().select(list(columns) if columns else [name for name in names if name != "vector"])
        return (query if where is None else query.where(where.sql)).to_batches()

    def _wanted(self, table: str) -> Any:
        opened = self._existing(table)
        if opened is None:
            raise LookupError(f"{self.uri} has no table {table!r}; it has {self.tables()}")
        return opened

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
        if not _deciding(opened.schema).equals(_deciding(schema), check_metadata=True):
            raise ValueError(
                f"table {table!r} of {self.uri} was made as\n{opened.schema}\n"
                f"and cannot take rows of\n{schema}\n"
                "Remove that database, or use another one: it is rebuilt from the shards."
            )
        return opened


def _deciding(schema: pa.Schema) -> pa.Schema:
    """The schema without what is told for people: the same weights may lie elsewhere now."""
    return schema.with_metadata({name: value for name, value in (schema.metadata or {}).items() if name != b"model"})


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
