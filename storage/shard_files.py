"""One shard: an uncompressed Arrow IPC file of rows sorted by `key`, which is their first column."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.ipc as ipc

from storage import files

SUFFIX = ".arrow"
FETCHED_AT_ONCE = 32
"""Shards of an object store whose keys are asked for at a time: each is a few round trips."""

_seen: dict[str, Shard] = {}
"""File name -> keys, of all shards that this process has looked into, whatever table they are of: a name is a digest of
the keys, and tables that are computed together have shards of the same names."""


class CorruptShard(RuntimeError):
    """A shard that cannot be read: another program cut or changed the file. The message says what to do."""


class Shard(NamedTuple):
    """The keys of a shard's rows, in order, with the first and the last of them as texts."""

    keys: pa.Array
    first: str
    last: str


def look_into(paths: Sequence[str]) -> dict[str, Shard]:
    """Shards by file name, in the order of `paths`; keys are read once in a process, since shards never change.

    CorruptShard for one that is not whole.
    """
    names = [os.path.basename(path) for path in paths]
    unseen = {name: path for name, path in zip(names, paths, strict=True) if name not in _seen}
    if unseen and files.is_remote(paths[0]):
        with ThreadPoolExecutor(FETCHED_AT_ONCE) as threads:
            _seen.update(zip(unseen, threads.map(_read_keys, unseen.values()), strict=True))
    else:
        _seen.update(zip(unseen, map(_read_keys, unseen.values()), strict=True))
    return {name: _seen[name] for name in names}


def read_shard(path: str, fields: Sequence[int] | None = None) -> pa.Table:
    """A shard, of which nothing is in memory before it is touched; or the columns at these places alone, in order.

    CorruptShard for one that is not whole.
    """
    # Closed at once, since a table of thousands of shards would use up the process's file descriptors;
    # the mapping itself lives as long as the columns do.
    with files.open_mapped(path) as file:
        try:
            return ipc.open_file(file, options=ipc.IpcReadOptions(included_fields=fields)).read_all()
        except (pa.ArrowException, OSError) as error:
            raise _explained(path, error) from error


def read_schema(path: str) -> pa.Schema:
    """The columns of a shard. CorruptShard for one that is not whole."""
    with files.open_mapped(path) as file:
        try:
            return ipc.open_file(file).schema
        except (pa.ArrowException, OSError) as error:
            raise _explained(path, error) from error


def encode_shard(rows: pa.Table) -> pa.Buffer:
    """The bytes of the file that holds these rows."""
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def _read_keys(path: str) -> Shard:
    rows = read_shard(path, [0])
    if rows.column_names != ["key"] or not len(rows):
        raise _corrupt(path, "its first column holds no keys")
    # A copy, since the process remembers it: thousands of files that stay mapped would use up its mappings.
    keys = pa.concat_arrays(rows["key"].chunks)
    return Shard(keys, keys[0].as_py(), keys[-1].as_py())


def _explained(path: str, error: Exception) -> Exception:
    """What to raise for an error in reading: objects of a store are whole, so there it is the network's."""
    return error if isinstance(error, OSError) and files.is_remote(path) else _corrupt(path, error)


def _corrupt(path: str, why: object) -> CorruptShard:
    return CorruptShard(f"{path} is no whole Arrow file ({why}). Remove it, and the next run computes its rows.")
