"""Arrays in and out of Arrow columns, and the schemas of the LanceDB tables.

A column of arrays is a fixed-size list, which Polars, LanceDB and plain pyarrow all read. An array of more
than one dimension a row is flattened, and its shape is given again when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

_DTYPES = (np.float16, np.float32, np.int32)


def fixed_list(array: np.ndarray) -> pa.FixedSizeListArray:
    """A column of n rows from an array [n, k, ...] of float16, float32 or int32: k * ... values a row.

    Copies nothing when the array is contiguous: it must not be changed afterwards. TypeError for another
    dtype, ValueError for an array without a second dimension or with nothing in a row.
    """
    if array.dtype not in _DTYPES:
        raise TypeError(f"a column of arrays holds float16, float32 or int32, not {array.dtype}")
    size = math.prod(array.shape[1:])
    if array.ndim < 2 or size == 0:
        raise ValueError(f"an array [n, k, ...] with k > 0 is wanted, got the shape {list(array.shape)}")
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), size)


def to_numpy(column: pa.Array | pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    """The array [n, *shape] that `fixed_list` made a column of, read-only.

    One length of `shape` may be -1: what is left. A view of the column's memory where it is one chunk, else a copy.
    ValueError where rows are null or hold another number of values than `shape` has.
    """
    if not pa.types.is_fixed_size_list(column.type):
        raise TypeError(f"a column of fixed-size lists is wanted, got {column.type}")
    size = column.type.list_size
    if -1 in shape:
        known = -math.prod(shape)
        shape = tuple(size // known if length == -1 and known > 0 else length for length in shape)
    if size != math.prod(shape):
        raise ValueError(f"the column holds {size} values a row, the shape {shape} has {math.prod(shape)}")
    if column.null_count:
        raise ValueError(f"the column has {column.null_count} null rows: an array has no place for them")
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), *shape)


def images_schema(d: int, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """LanceDB table `images`: one row an image, vector = its global feature [d]; sizes in pixels."""
    return _schema(
        [
            ("version", pa.string()),
            ("uri", pa.string()),
            ("class", pa.string()),
            ("split", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
        ],
        d,
        metadata,
    )


def crops_schema(d: int, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """LanceDB table `crops`: one row a crop, vector = its feature [d].

    `image` is the image's id, `view` the name of the view set, `kind` raw or feature, `number` its place in
    the set, `box` (x0, y0, x1, y1) in pixels of the image.
    """
    return _schema(
        [
            ("image", pa.string()),
            ("view", pa.string()),
            ("kind", pa.string()),
            ("number", pa.int32()),
            ("class", pa.string()),
            ("split", pa.string()),
            ("box", pa.list_(pa.int32(), 4)),
        ],
        d,
        metadata,
    )


def descriptors_schema(d: int, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """LanceDB table `descriptors`: one row a class and sentence of a set, vector = its feature [d]."""
    return _schema(
        [("class", pa.string()), ("set", pa.string()), ("number", pa.int32()), ("text", pa.string())],
        d,
        metadata,
    )


def cache_schema(d: int, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """LanceDB table `cache`: one row a seed, support image and description of its class; vector = its crop's [d].

    The crop is the one that fits the description best (algorithms.md 7.2): crop `number` of the view set `view`, at
    `box` (x0, y0, x1, y1) in pixels of the image, with the cosine `descriptor_similarity`. `descriptor` is the
    description's number in its class and `set`, `text` its words. `shot` counts the images of a class from 0 under each
    `seed`; `method` is the first of the job that reads it.
    """
    return _schema(
        [
            ("image", pa.string()),
            ("class", pa.string()),
            ("set", pa.string()),
            ("descriptor", pa.int32()),
            ("text", pa.string()),
            ("shot", pa.int32()),
            ("seed", pa.int32()),
            ("view", pa.string()),
            ("number", pa.int32()),
            ("box", pa.list_(pa.int32(), 4)),
            ("descriptor_similarity", pa.float32()),
            ("method", pa.string()),
        ],
        d,
        metadata,
    )


def _schema(columns: list[tuple[str, pa.DataType]], d: int, metadata: Mapping[str, str] | None) -> pa.Schema:
    """Every table: a non-null `id` first, `vector` fp16 last.

    Metadata, all texts: `weights` (their hash) and `fingerprint` (of the features) decide which rows may stand in one
    table; `model` (what the job calls it) tells people what the weights are.
    """
    fields = [pa.field("id", pa.string(), nullable=False), *(pa.field(*column) for column in columns)]
    return pa.schema([*fields, pa.field("vector", pa.list_(pa.float16(), d))], metadata=metadata or None)
