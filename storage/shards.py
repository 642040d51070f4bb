"""Tables of shards: what a stage has computed, row by row, found again by key (architecture.md 4).

A table is a folder: `table.json` says what its fingerprint was made of, `<digest of sorted keys>.arrow` are
its shards, `rejects/` is a table of the rows that could not be computed. A shard is an uncompressed Arrow IPC
file, so that reading one column of it maps, or fetches, that column's bytes and no others. Shards never change, and
any two that hold a key hold the same row for it, so nothing needs a lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import files
from storage.fingerprint import digest
from storage.shard_files import FETCHED_AT_ONCE, SUFFIX, Shard, encode_shard, look_into, read_schema, read_shard

REJECTS_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "uri", "reason", "stage")])

Keys = Sequence[str] | pa.Array | pa.ChunkedArray

_DESCRIPTION = "table.json"
_COMPARISONS_KEPT = 8
_WORTH_KEEPING = 10_000

_compared: list[tuple[tuple[str, ...], pa.ChunkedArray, pa.ChunkedArray]] = []
"""Names of shards, wanted keys, and which of these are in none of the shards: tables that are computed together have
shards of the same names, and are compared with what they want once, however often a job is planned."""


class ShardTable:
    """A table of rows with a unique string `key`, their first column, kept as shards in `folder`, which may be missing.

    The process remembers the keys of the shards that it has seen, so asking again costs a listing of the folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._shards: dict[str, Shard] = {}
        self._schema: pa.Schema | None = None

    @property
    def exists(self) -> bool:
        """Whether the table was created."""
        return files.exists(os.path.join(self.folder, _DESCRIPTION))

    def create(self, description: dict[str, object]) -> None:
        """Write `table.json`: what the table's fingerprint was made of. A table that exists keeps its own."""
        if not self.exists:
            text = json.dumps(description, indent=2, sort_keys=True, allow_nan=False)
            files.write_atomic(os.path.join(self.folder, _DESCRIPTION), text.encode(), run="tables")

    def description(self) -> dict[str, object]:
        """What `create` wrote; FileNotFoundError where the table was never created."""
        return json.loads(files.read_bytes(os.path.join(self.folder, _DESCRIPTION)))

    def append(self, rows: pa.Table, run: str) -> str:
        """Write rows as one shard, sorted by key, and return its name; "" and no shard for no rows.

        Rows that are a shard already are not written again. ValueError for a missing, null, empty or repeated
        key and for columns that differ from the table's first shard in name, order or type.
        """
        rows = rows.replace_schema_metadata(None)
        if rows.num_rows == 0:
            return ""
        _check_rows(rows, self.folder)
        schema = self._first_schema()
        if schema is not None and not rows.schema.equals(schema):
            raise ValueError(
                f"rows for {self.folder} must have the columns of its first shard\n{schema}\nbut have\n{rows.schema}"
            )
        # Sorted, so that a shard's name also stands for its order of rows, and remembered places stay true.
        rows = rows.sort_by("key").combine_chunks()
        name = digest(rows["key"].to_pylist()) + SUFFIX
        path = os.path.join(self.folder, name)
        if not files.exists(path):
            files.write_atomic(path, memoryview(encode_shard(rows)), run)
        self._schema = rows.schema
        return name

    def keys(self) -> pa.ChunkedArray:
        """The keys of all rows, shard by shard; one that several shards hold stands there as often."""
        self._look()
        return _keys_of(self._shards.values())

    def missing(self, wanted: Keys) -> pa.ChunkedArray:
        """The wanted keys, in their order, that the table neither holds nor has rejected."""
        wanted = key_column(wanted)
        self._look()
        self._rejects._look()
        # A shard's name is a digest of its keys, so names say which keys there are.
        names = (*self._shards, *self._rejects._shards)
        for same, compared, missing in _compared:
            if same == names and (compared is wanted or compared.equals(wanted)):
                return missing
        settled = _keys_of([*self._shards.values(), *self._rejects._shards.values()])
        missing = wanted.filter(pc.invert(pc.is_in(wanted, value_set=settled)))
        if len(wanted) >= _WORTH_KEEPING:
            _compared[:] = [(names, wanted, missing), *_compared[: _COMPARISONS_KEPT - 1]]
        return missing

    def read(self, keys: Keys | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """One row a key, in the order of `keys`; without them all rows, in the order of the shards' names.

        Where several shards hold a key, its row is that of the first by name. `columns` are the columns wanted, all by
        default. Reading everything maps the shards and copies only where two of them hold the same key; reading by
        keys copies those rows. KeyError names missing keys or columns; LookupError where the table has no shard yet
        and so no columns.
        """
        if keys is not None and self._shards:
            with suppress(KeyError, FileNotFoundError):  # what we know of is not all, or not there any more
                return self._read(key_column(keys), columns)
        self._look()
        return self._read(None if keys is None else key_column(keys), columns)

    def columns(self) -> list[str]:
        """Names of the columns; none where the table has no shard yet."""
        schema = self._first_schema()
        return [] if schema is None else schema.names

    def rows(self) -> int:
        """How many keys the table holds."""
        return pc.count_distinct(self.keys()).as_py()

    def bytes(self) -> int:
        """Size on disk, rejects included."""
        return files.folder_bytes(self.folder)

    def modified(self) -> float | None:
        """When the newest shard was written, in seconds since 1970; None for a table without shards."""
        return max((stamp for _, stamp in files.list_stamped(self.folder, SUFFIX)), default=None)

    def reject(self, rows: Sequence[dict[str, str]], stage: str, run: str) -> None:
        """Note rows that cannot be computed: dicts of `key`, `uri`, `reason`, each key once."""
        noted = [{**row, "stage": stage} for row in rows]
        for row in noted:
            if set(row) != set(REJECTS_SCHEMA.names):
                raise ValueError(f"a rejected row has key, uri and reason, not {sorted(set(row) - {'stage'})}")
        self._rejects.append(pa.Table.from_pylist(noted, schema=REJECTS_SCHEMA), run)

    def rejects(self) -> pa.Table:
        """The rejected rows: key, uri, reason, stage; one row a key."""
        self._rejects._look()
        return self._rejects._read(None, None) if self._rejects._shards else REJECTS_SCHEMA.empty_table()

    def forget_rejects(self) -> None:
        """Forget which rows could not be computed, so that they are tried again."""
        files.remove_folder(self._rejects.folder, run="tables")

    def clear(self) -> None:
        """Forget all rows and rejects at once, keep the description.

        On a disk a crash leaves them whole or gone. In an object store it may leave some, which count as computed.
        """
        description = self.description() if self.exists else None
        files.remove_folder(self.folder, run="tables")
        self._schema = None
        if description is not None:
            self.create(description)

    @cached_property
    def _rejects(self) -> ShardTable:
        return ShardTable(os.path.join(self.folder, "rejects"))

    def _look(self) -> None:
        """Find out which shards there are now, by name in the order of names, and the keys of new ones."""
        self._shards = look_into(files.list_files(self.folder, SUFFIX))

    def _first_schema(self) -> pa.Schema | None:
        """The columns of all shards: those of the first that was seen or written."""
        if self._schema is None and (paths := files.list_files(self.folder, SUFFIX)):
            self._schema = read_schema(paths[0])
        return self._schema

    def _read(self, keys: pa.ChunkedArray | None, columns: Sequence[str] | None) -> pa.Table:
        shards = self._shards if keys is None else _spanning(self._shards, keys)
        held = _keys_of(shards.values())
        places = pc.index_in(held if keys is None else keys, value_set=held)
        if places.null_count:
            unknown = keys.filter(pc.is_null(places)).slice(0, 3).to_pylist()
            raise KeyError(f"{places.null_count} of {len(keys)} keys are not in {self.folder}, such as {unknown}")
        if not self._shards:
            raise LookupError(f"{self.folder} has no rows yet, so its columns are not known: look at rows() first")
        # Every row of a shard is at its own place but where an earlier shard holds its key, and has the row.
        return self._gather((pc.unique(places) if keys is None else places).to_numpy(), shards, columns)

    def _gather(self, rows: np.ndarray, shards: Mapping[str, Shard], columns: Sequence[str] | None) -> pa.Table:
        """Rows by their numbers, counted through the shards one after another, in the order of `rows`."""
        schema, fields = self._first_schema(), None
        if schema is None:
            raise FileNotFoundError(f"the shards of {self.folder} were removed")
        if columns is not None:
            if unknown := [column for column in columns if column not in schema.names]:
                raise KeyError(f"{self.folder} has no columns {unknown}; it has {schema.names}")
            fields = sorted({schema.get_field_index(column) for column in columns})
            schema = pa.schema([schema.field(number) for number in fields])
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum([len(shard.keys) for shard in shards.values()])
        wanted, start, first = [], 0, 0
        for name, end, stop in zip(shards, ends, np.searchsorted(rows[order], ends), strict=True):
            if stop > start:
                wanted.append((os.path.join(self.folder, name), rows[order[start:stop]] - first))
            start, first = stop, end
        if files.is_remote(self.folder):
            with ThreadPoolExecutor(FETCHED_AT_ONCE) as threads:
                parts = list(threads.map(lambda one: _fetch(*one, fields), wanted))
        else:
            parts = [_take(read_shard(path, fields), own) for path, own in wanted]
        table = pa.concat_tables(parts or [schema.empty_table()])
        table = table if columns is None else table.select(list(columns))
        return table if np.array_equal(order, np.arange(len(order))) else table.take(pa.array(np.argsort(order)))


def _take(shard: pa.Table, rows: np.ndarray) -> pa.Table:
    return shard if np.array_equal(rows, np.arange(len(shard))) else shard.take(pa.array(rows))


def _fetch(path: str, rows: np.ndarray, fields: Sequence[int] | None) -> pa.Table:
    """Rows of an object. What is fetched whole would be kept whole by one of its columns, so a few are copied out."""
    shard = read_shard(path, fields)
    return _take(shard, rows) if fields is None else shard.take(pa.array(rows))


def key_column(keys: Keys) -> pa.ChunkedArray:
    """Keys as a column of texts; a column is returned as it is."""
    if isinstance(keys, pa.ChunkedArray):
        return keys
    return pa.chunked_array([keys if isinstance(keys, pa.Array) else pa.array(keys, pa.string())])


def _keys_of(shards: Sequence[Shard]) -> pa.ChunkedArray:
    return pa.chunked_array([shard.keys for shard in shards], pa.string())


def _spanning(shards: Mapping[str, Shard], keys: pa.ChunkedArray) -> dict[str, Shard]:
    """The shards that may hold any of these keys: a batch of neighbours need not be looked for in thousands."""
    ends = pc.min_max(keys)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return {name: one for name, one in shards.items() if low is not None and one.first <= high and one.last >= low}


def _check_rows(rows: pa.Table, folder: str) -> None:
    if rows.column_names[0] != "key" or rows.schema.field("key").type != pa.string():
        raise ValueError(
            f"rows for {folder} need a column `key` of type string, the first one, got the columns\n{rows.schema}"
        )
    keys = rows["key"]
    if keys.null_count or pc.any(pc.equal(keys, "")).as_py():
        raise ValueError(f"rows for {folder} need a key each: some are null or empty")
    if pc.count_distinct(keys).as_py() != len(keys):
        counts = pc.value_counts(keys).to_pylist()
        repeated = [count["values"] for count in counts if count["counts"] > 1]
        raise ValueError(f"rows for {folder} hold some keys more than once, such as {repeated[:3]}")
    for field in rows.schema:
        if isinstance(field.type, pa.BaseExtensionType):
            raise ValueError(
                f"column {field.name} of the rows for {folder} is a {field.type}, which Polars and others "
                "cannot read: make it with storage.schemas.fixed_list"
            )
