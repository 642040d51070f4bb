"""Rows of a LanceDB table as Arrow, vectors included, for those who read a database and never change it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa

from storage.filesystems import is_object_uri, lance_options
from storage.lance import Filter


class LanceRows:
    """The LanceDB database at `uri`, a folder or `s3://`, `gs://`, to be read; a read sees the latest commit."""

    def __init__(self, uri: str) -> None:
        import lancedb

        self.uri = uri
        options = lance_options(uri) if is_object_uri(uri) else None
        self._database = lancedb.connect(uri, read_consistency_interval=timedelta(0), storage_options=options)

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._database.list_tables().tables)

    def schema(self, table: str) -> pa.Schema:
        """The columns of a table, and in its metadata who made it. LookupError for a missing table."""
        return self._open(table).schema

    def read(self, table: str, columns: Sequence[str] | None = None, where: Filter | None = None) -> pa.Table:
        """The rows that the filter lets pass, in no order; all of them without one.

        LookupError for a missing table, KeyError for columns that it has not.
        """
        opened = self._open(table)
        names = opened.schema.names
        if unknown := [name for name in columns or () if name not in names]:
            raise KeyError(f"table {table!r} has no columns {unknown}; it has {names}")
        query = opened.search().select(list(columns or names))
        return (query if where is None else query.where(where.sql)).to_arrow()

    def _open(self, table: str) -> Any:
        try:
            return self._database.open_table(table)
        except ValueError as error:
            if f"'{table}' was not found" not in str(error):
                raise
            raise LookupError(f"{self.uri} has no table {table!r}; it has {self.tables()}") from None
