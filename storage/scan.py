"""The rows of a table of shards as a stream of Arrow batches, one shard in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage import files
from storage.shard_files import SUFFIX, Shard, look_into, read_schema, read_shard


def scan_shards(folder: str, columns: Sequence[str] | None = None, *, single: bool = False) -> pa.RecordBatchReader:
    """The rows of a `ShardTable`'s folder, a row a key, in the order of the shards' names and of keys within them.

    `columns` are the columns wanted, in that order, all by default. Half floats stay what they are, or are cast to
    single ones (exact): DuckDB refuses a table that has any. Shards on a disk are mapped, not copied, unless cast.
    LookupError where the table has no shard, KeyError for columns that it has not.
    """
    paths = files.list_files(folder, SUFFIX)
    if not paths:
        raise LookupError(f"{folder} has no rows")
    schema = read_schema(paths[0])
    wanted = schema.names if columns is None else list(columns)
    if unknown := [name for name in wanted if name not in schema.names]:
        raise KeyError(f"{folder} has no columns {unknown}; it has {schema.names}")
    chosen = pa.schema([schema.field(name) for name in wanted])
    fields = None if columns is None else sorted({schema.get_field_index(name) for name in wanted})
    told = as_single(chosen) if single else chosen
    return pa.RecordBatchReader.from_batches(told, _batches(folder, look_into(paths), fields, told))


def as_single(schema: pa.Schema) -> pa.Schema:
    """The schema with single floats wherever it has half ones, in lists of a fixed size too."""
    return pa.schema([field.with_type(_single(field.type)) for field in schema], schema.metadata)


def _single(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_single(kind.value_type), kind.list_size)
    return pa.float32() if pa.types.is_float16(kind) else kind


def _batches(
    folder: str, shards: Mapping[str, Shard], fields: Sequence[int] | None, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for name, own in zip(shards, _first_of_their_key(shards), strict=True):
        rows = read_shard(os.path.join(folder, name), fields).select(schema.names)
        yield from (rows if own is None else rows.filter(own)).cast(schema).to_batches()


def _first_of_their_key(shards: Mapping[str, Shard]) -> Iterator[pa.Array | None]:
    """Which rows of each shard no shard before it holds; None for all of them."""
    keys = pa.chunked_array([shard.keys for shard in shards.values()], pa.string())
    first = pc.index_in(keys, value_set=keys).to_numpy() == np.arange(len(keys))
    start = 0
    for shard in shards.values():
        own = first[start : start + len(shard.keys)]
        yield None if own.all() else pa.array(own)
        start += len(shard.keys)
