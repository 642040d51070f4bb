"""Remember what is slow to find out about a file: the members of a tar, the hashes of a Parquet file's cells.

A run plans about ten times and `status` plans anew each time, so what was found is kept in the process and, where
there is a folder for it in the store, as an Arrow file named by a digest of everything it depends on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

import pyarrow as pa

from storage.files import open_mapped, write_atomic
from storage.fingerprint import digest

_in_this_process: dict[str, pa.Table] = {}


def keep(folder: str | None, about: str, settings: Sequence[object], find: Callable[[], pa.Table]) -> pa.Table:
    """What `find()` answers about the file `about`, asked once for its size and modification time and `settings`."""
    status = os.stat(about)
    name = digest([os.path.abspath(about), status.st_size, status.st_mtime_ns, *settings])
    if name not in _in_this_process:
        _in_this_process[name] = find() if folder is None else _on_disk(os.path.join(folder, f"{name}.arrow"), find)
    return _in_this_process[name]


def names_asked_for() -> set[str]:
    """Names of all that this process has asked for, of whatever job."""
    return set(_in_this_process)


def _on_disk(path: str, find: Callable[[], pa.Table]) -> pa.Table:
    with suppress(OSError), open_mapped(path) as file:  # mostly there is none yet
        return pa.ipc.open_file(file).read_all()
    found = find()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, found.schema) as writer:
        writer.write_table(found)
    with suppress(OSError):  # a store that may only be looked at: the next one looks for itself
        write_atomic(path, sink.getvalue(), run="listings")
    return found
