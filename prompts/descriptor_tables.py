"""Descriptors in tables: Parquet and Arrow files, and LanceDB."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from .descriptor_rows import CLASS, ONE, SEVERAL, SHAPE, Row, gather

VERSIONS = "_versions"
"""In the folder of a LanceDB table: a file a version."""


def read_parquet(content: bytes, path: str | Path) -> pa.Table:
    """The two columns of a Parquet file that say descriptors.

    Raises ValueError, naming the file, for other bytes and other columns.
    """
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        return file.read(columns=_two(names, path))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is no Parquet file ({_first_line(error)})") from None


def read_arrow(content: bytes, path: str | Path) -> pa.Table:
    """The two columns of an Arrow IPC file (Feather is one) or stream that say descriptors.

    Raises ValueError, naming the file, for other bytes and other columns.
    """
    try:
        try:
            reader = pa.ipc.open_file(pa.BufferReader(content))
        except pa.ArrowInvalid:
            reader = pa.ipc.open_stream(pa.BufferReader(content))
        table = reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is no Arrow IPC file ({_first_line(error)})") from None
    return table.select(_two(table.column_names, path))


def table_rows(table: pa.Table) -> Iterator[Row]:
    """The rows of a table, counted from 1."""
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(f"row {number}", values)


def find_lance(path: str | Path, table: str | None) -> Path | None:
    """The folder of a LanceDB table that `path` (NAME.lance), or `table` in the database `path`, names; else None.

    Raises ValueError, naming what there is, for a table that is missing, and for a folder that is no such thing.
    """
    path = Path(path)
    if table is None and path.suffix != ".lance" and not path.is_dir():
        return None
    folder = path if table is None else path / f"{table}.lance"
    if (folder / VERSIONS).is_dir():
        return folder
    there = sorted(each.stem for each in path.glob("*.lance")) if path.is_dir() else []
    if there:
        wrong = f"has no table {table!r}" if table is not None else "is a LanceDB database; say which `table`"
        raise ValueError(f"{path}: {wrong}; there are {', '.join(there)}")
    raise ValueError(f"{path}: is no folder of a LanceDB table (NAME.lance), nor of a database with `table` in it")


def lance_version(folder: Path) -> list[str]:
    """What every change of a LanceDB table changes, told without lancedb: the names of its versions' files."""
    return sorted(os.listdir(folder / VERSIONS))


def read_lance(folder: Path) -> dict[str, list[str]]:
    """Class name -> texts of the newest version of a LanceDB table, in the order of its rows; loads lancedb.

    Raises ValueError as `read_descriptor_file` does.
    """
    import lancedb

    try:
        opened = lancedb.connect(str(folder.parent)).open_table(folder.stem)
        names = opened.schema.names
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{folder}: cannot be read as a LanceDB table: {_first_line(error)}") from None
    return gather(table_rows(opened.search().select(_two(names, folder)).to_arrow()), folder)


def _two(names: Sequence[str], path: str | Path) -> list[str]:
    """The column of classes, and the one of texts. Raises ValueError where they are not there."""
    said = [name for name in names if name in (*ONE, *SEVERAL)]
    if CLASS not in names or len(said) != 1:
        raise ValueError(f"{path}: has the columns {', '.join(names) or 'none'}; {SHAPE}")
    return [CLASS, *said]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
