"""Tables of shards: what a stage has computed, row by row, found again by key (architecture.md 4).

A table is a folder: `table.json` says what its fingerprint was made of, `<digest of sorted keys>.arrow` are
its shards, `rejects/` is a table of the rows that could not be computed. A shard is an uncompressed Arrow IPC
file, so that reading one column of it maps that column's bytes and no others. Shards never change, and any
two that hold a key hold the same row for it, so nothing needs a lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc

from storage import files
from storage.fingerprint import digest

REJECTS_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "uri", "reason", "stage")])

_DESCRIPTION = "table.json"
_SUFFIX = ".arrow"


class CorruptShard(RuntimeError):
    """A shard that cannot be read: another program cut or changed the file. The message says what to do."""


class ShardTable:
    """A table of rows with a unique string `key`, kept as shards in `folder`, which may be missing.

    Remembers the keys of the shards it has seen, so asking again costs a listing of the folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._seen: frozenset[str] = frozenset()
        self._places: dict[str, tuple[str, int]] = {}

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
        first = self._first_shard()
        if first is not None and not rows.schema.equals(first.schema):
            raise ValueError(
                f"rows for {self.folder} must have the columns of its first shard\n{first.schema}\n"
                f"but have\n{rows.schema}"
            )
        # Sorted, so that a shard's name also stands for its order of rows, and remembered places stay true.
        rows = rows.sort_by("key").combine_chunks()
        name = digest(rows["key"].to_pylist()) + _SUFFIX
        path = os.path.join(self.folder, name)
        if not files.exists(path):
            files.write_atomic(path, memoryview(_encode(rows)), run)
        return name

    def keys(self) -> set[str]:
        """The keys of all rows."""
        return set(self.locate())

    def locate(self) -> Mapping[str, tuple[str, int]]:
        """For every key the (shard name, row) that holds it; the first shard by name, where several do.

        The mapping is the table's own and grows with it.
        """
        names = frozenset(os.path.basename(path) for path in files.list_files(self.folder, _SUFFIX))
        if not names >= self._seen:  # shards were removed
            self._seen, self._places = frozenset(), {}
        for name in names - self._seen:
            for row, key in enumerate(self._open(name)["key"].to_pylist()):
                place = self._places.get(key)
                if place is None or name < place[0]:
                    self._places[key] = (name, row)
        self._seen = names
        return self._places

    def read(self, keys: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """One row a key, in the order of `keys`; without them all rows, in the order of the shards' names.

        `columns` are the columns wanted, all by default. Reading everything maps the shards and copies only
        where two of them hold the same key; reading by keys copies those rows. KeyError names missing keys or
        columns; LookupError where the table has no shard yet and so no columns.
        """
        places = self.locate()
        if keys is not None:
            missing = [key for key in keys if key not in places]
            if missing:
                raise KeyError(f"{len(missing)} of {len(keys)} keys are not in {self.folder}, such as {missing[:3]}")
        if not self._seen:
            raise LookupError(f"{self.folder} has no rows yet, so its columns are not known: look at rows() first")
        wanted = sorted(places.values()) if keys is None else [places[key] for key in keys]
        rows_of: dict[str, list[int]] = {}
        for name, row in wanted:
            rows_of.setdefault(name, []).append(row)
        parts = [self._take(name, rows_of[name], columns) for name in sorted(rows_of)]
        if not parts:
            return self._take(min(self._seen), [], columns)
        table = pa.concat_tables(parts)
        return _reorder(table, wanted)

    def columns(self) -> list[str]:
        """Names of the columns; none where the table has no shard yet."""
        first = self._first_shard()
        return first.column_names if first is not None else []

    def rows(self) -> int:
        """How many keys the table holds."""
        return len(self.locate())

    def bytes(self) -> int:
        """Size on disk, rejects included."""
        return files.folder_bytes(self.folder)

    def modified(self) -> float | None:
        """When the newest shard was written, in seconds since 1970; None for a table without shards."""
        return max(map(files.modified, files.list_files(self.folder, _SUFFIX)), default=None)

    def reject(self, rows: Sequence[dict[str, str]], stage: str, run: str) -> None:
        """Note rows that cannot be computed: dicts of `key`, `uri`, `reason`, each key once."""
        noted = [{**row, "stage": stage} for row in rows]
        for row in noted:
            if set(row) != set(REJECTS_SCHEMA.names):
                raise ValueError(f"a rejected row has key, uri and reason, not {sorted(set(row) - {'stage'})}")
        self._rejects().append(pa.Table.from_pylist(noted, schema=REJECTS_SCHEMA), run)

    def rejects(self) -> pa.Table:
        """The rejected rows: key, uri, reason, stage; one row a key."""
        rejects = self._rejects()
        return rejects.read() if rejects.rows() else REJECTS_SCHEMA.empty_table()

    def forget_rejects(self) -> None:
        """Forget which rows could not be computed, so that they are tried again."""
        files.remove_folder(self._rejects().folder, run="tables")

    def clear(self) -> None:
        """Forget all rows and rejects at once, keep the description; a crash leaves them whole or gone."""
        description = self.description() if self.exists else None
        files.remove_folder(self.folder, run="tables")
        if description is not None:
            self.create(description)

    def _rejects(self) -> ShardTable:
        return ShardTable(os.path.join(self.folder, "rejects"))

    def _first_shard(self) -> pa.Table | None:
        paths = files.list_files(self.folder, _SUFFIX)
        return self._open(os.path.basename(paths[0])) if paths else None

    def _open(self, name: str) -> pa.Table:
        """A whole shard as a table, of which nothing is in memory before it is touched."""
        path = os.path.join(self.folder, name)
        # Closed at once, since a table of thousands of shards would use up the process's file descriptors;
        # the mapping itself lives as long as the columns do.
        with files.open_mapped(path) as file:
            try:
                return ipc.open_file(file).read_all()
            except (pa.ArrowException, OSError) as error:
                raise CorruptShard(
                    f"{path} is no whole Arrow file ({error}). Remove it, and the next run computes its rows."
                ) from error

    def _take(self, name: str, rows: list[int], columns: Sequence[str] | None) -> pa.Table:
        """The given rows of a shard: the mapped shard itself where they are all of its rows in order."""
        shard = self._open(name)
        if columns is not None:
            unknown = [column for column in columns if column not in shard.column_names]
            if unknown:
                raise KeyError(f"{self.folder} has no columns {unknown}; it has {shard.column_names}")
            shard = shard.select(list(columns))
        return shard if rows == list(range(shard.num_rows)) else shard.take(pa.array(rows, pa.int64()))


def missing_keys(wanted: Sequence[str], table: ShardTable) -> list[str]:
    """The wanted keys, in their order and each once, that the table neither holds nor has rejected."""
    done = table.keys().union(table.rejects()["key"].to_pylist())
    return [key for key in dict.fromkeys(wanted) if key not in done]


def _check_rows(rows: pa.Table, folder: str) -> None:
    if "key" not in rows.column_names or rows.schema.field("key").type != pa.string():
        raise ValueError(f"rows for {folder} need a column `key` of type string, got the columns\n{rows.schema}")
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


def _encode(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def _reorder(table: pa.Table, wanted: list[tuple[str, int]]) -> pa.Table:
    """Rows that came grouped by shard, in the order of the shards, put into the order that was wanted."""
    # A stable sort: within a shard the rows stay as its group was filled.
    grouped = sorted(range(len(wanted)), key=lambda index: wanted[index][0])
    if grouped == list(range(len(wanted))):
        return table
    order = [0] * len(wanted)
    for position, index in enumerate(grouped):
        order[index] = position
    return table.take(pa.array(order, pa.int64()))
