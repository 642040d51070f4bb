"""A digest of columns of text, made without an object a row: what a million images are called, or labelled as."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from storage.fingerprint import DIGEST_LENGTH


def digest_columns(columns: Sequence[pa.ChunkedArray]) -> str:
    """20 hex digits that stand for the rows of these string columns, in their order, nulls included.

    How the columns are cut into chunks does not matter. TypeError for a column of another type.
    """
    # Column by column: the number of rows (8 bytes), the length of each text in bytes (4 bytes each, -1 for a null),
    # then all texts in UTF-8, nothing between them. Numbers are little-endian. Lengths come first, so no two tables
    # have the same bytes.
    hashed = hashlib.sha256()
    for column in columns:
        if column.type != pa.string():
            raise TypeError(f"a digest is made of columns of type string, not {column.type}")
        hashed.update(len(column).to_bytes(8, "little"))
        for chunk in column.chunks:
            hashed.update(pc.fill_null(pc.binary_length(chunk), -1).to_numpy().astype("<i4", copy=False))
        for chunk in pc.fill_null(column, "").chunks:
            hashed.update(_texts(chunk))
    return hashed.hexdigest()[:DIGEST_LENGTH]


def _texts(chunk: pa.StringArray) -> memoryview | bytes:
    """The bytes of all texts of an array, which may be part of a longer one."""
    _, offsets, data = chunk.buffers()
    if data is None or not len(chunk):
        return b""
    ends = memoryview(offsets).cast("i")
    return memoryview(data)[ends[chunk.offset] : ends[chunk.offset + len(chunk)]]
