"""Markers: which rows a LanceDB table holds, told without importing lancedb.

`projected.json` lies in the database's folder, so it is never left behind when a database is removed, and goes first
where objects are removed one after another. It maps a table's name to the digest of the rows that were projected. A
marker is dropped before its table is changed and written after the last change, so a projection that was cut short is
never taken for a finished one.
"""

from __future__ import annotations

import json
import os

from storage import files


def write_marker(uri: str, table: str, digest: str) -> None:
    """Note that `table` of the database at `uri` now holds exactly the rows that `digest` stands for."""
    _write(uri, {**_read(uri), table: digest})


def marker(uri: str, table: str) -> str | None:
    """The digest that the table was last completed with; None if it never was, or is being changed."""
    return _read(uri).get(table)


def drop_marker(uri: str, table: str) -> None:
    """Forget the table's digest, because its rows are about to change. Harmless where there is none."""
    markers = _read(uri)
    if markers.pop(table, None) is not None:
        _write(uri, markers)


def _path(uri: str) -> str:
    return os.path.join(uri, "projected.json")


def _read(uri: str) -> dict[str, str]:
    path = _path(uri)
    try:
        return json.loads(files.read_bytes(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): remove it and the tables are projected again") from error


def _write(uri: str, markers: dict[str, str]) -> None:
    files.write_atomic(_path(uri), json.dumps(markers, indent=1, sort_keys=True).encode(), run="markers")
