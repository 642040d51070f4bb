"""The only place where a store touches a file system: a folder's path or `s3://`, `gs://` as plain strings.

Everything that a reader can see is complete: files are written under a temporary name in the same folder and
renamed. A temporary is called `.tmp-<run>-<random>-<name>`, so that what a dead run left behind can be told
from what a living one is writing. Objects appear whole by themselves, and have no temporaries. All functions may be
called from many threads; what goes wrong is an OSError that names the path.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

import pyarrow as pa

from storage import objects
from storage.filesystems import is_object_uri

_RUN = re.compile(r"[A-Za-z0-9_.]+")
_TEMPORARY = re.compile(r"\.tmp-(?P<run>[A-Za-z0-9_.]+)-[0-9a-f]{16}-.+", re.DOTALL)


def is_remote(path: str) -> bool:
    """Whether a path lies in an object store, where each question is a request."""
    return is_object_uri(path)


def write_atomic(path: str, data: bytes | memoryview, run: str) -> None:
    """Put `data` at `path`, whole or not at all, replacing what was there; missing folders are made, buckets not.

    `run` is the id of the writing run: letters, digits, `_` and `.` (ValueError otherwise). An OSError (disk
    full, no permission) reaches the caller with the temporary removed and the old file, if there was one,
    untouched.
    """
    if is_remote(path):
        _temporary(path, run)
        objects.put(path, data)
        return
    try:
        _write(path, data, run)
    except FileNotFoundError:
        # Who has no claim yet looks dead, and the sweep of another run may take its temporary. Once is enough: a run
        # sweeps at its start.
        _write(path, data, run)


def _write(path: str, data: bytes | memoryview, run: str) -> None:
    temporary = _temporary(path, run)
    os.makedirs(os.path.dirname(temporary), exist_ok=True)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            # Without this, a power cut may keep the rename and lose the contents. The folder itself is not
            # synced: a lost rename is a missing file, which the next run writes again.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def read_bytes(path: str) -> bytes:
    """All bytes of a file; FileNotFoundError where there is none."""
    if is_remote(path):
        return objects.get(path)
    with open(path, "rb") as file:
        return file.read()


def read_each(paths: Sequence[str]) -> list[bytes]:
    """All bytes of each file, many at once where each is a request."""
    return objects.get_each(paths) if paths and is_remote(paths[0]) else [read_bytes(path) for path in paths]


def open_mapped(path: str) -> pa.NativeFile:
    """A file for random reads that copies nothing until it is touched; what was read outlives its closing.

    A small object is fetched whole, of a large one each read is a request of its own.
    """
    return objects.open_fetched(path) if is_remote(path) else pa.memory_map(path, "r")


def exists(path: str) -> bool:
    """Whether there is a file or folder of that name."""
    return objects.find(path) is not None if is_remote(path) else os.path.exists(path)


def modified(path: str) -> float:
    """When a file was last changed, in seconds since 1970 by the store's clock; FileNotFoundError without one."""
    if not is_remote(path):
        return os.stat(path).st_mtime
    found = objects.find(path)
    if found is None or not found.is_file:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", path)
    return found.mtime_ns / 1e9


def list_files(folder: str, suffix: str) -> list[str]:
    """Sorted paths of the visible files in `folder` itself that end in `suffix`; none if it is missing."""
    if is_remote(folder):
        return [path for path, _ in list_stamped(folder, suffix)]
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in sorted(names) if _is_listed(name, suffix)]


def list_stamped(folder: str, suffix: str) -> list[tuple[str, float]]:
    """As `list_files`, each path with the time of its last change in seconds since 1970 by the store's clock."""
    if is_remote(folder):
        found = [(path, info) for path, info in objects.listing(folder) if info.is_file]
        return [(path, info.mtime_ns / 1e9) for path, info in found if _is_listed(info.base_name, suffix)]
    stamped = []
    for path in list_files(folder, suffix):
        with suppress(FileNotFoundError):  # removed while we looked
            stamped.append((path, modified(path)))
    return stamped


def list_folders(folder: str) -> list[str]:
    """Sorted paths of the visible folders in `folder` itself; none if it is missing."""
    if is_remote(folder):
        return [path for path in objects.folders(folder) if not os.path.basename(path).startswith(".")]
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir() and entry.name[0] != ".")
    except FileNotFoundError:
        return []


def relative(path: str, base: str) -> str:
    """What leads from `base` to a path below it, with forward slashes."""
    return PurePosixPath(path).relative_to(PurePosixPath(base)).as_posix()


def folder_bytes(folder: str) -> int:
    """Bytes of all files under `folder`, sub-folders and temporaries included; 0 for a missing one."""
    if is_remote(folder):
        return sum(info.size for _, info in objects.listing(folder, recursive=True) if info.is_file)
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:  # a temporary that was renamed while we looked
                continue
    return total


def remove_file(path: str) -> None:
    """Remove a file; a missing one is fine."""
    if is_remote(path):
        objects.remove(path)
        return
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove_folder(folder: str, run: str) -> None:
    """Make a folder vanish at once, then free its space; a crash in between leaves a temporary to sweep.

    On an object store it goes a thousand objects at a time, first the JSON files that say what the others are.
    """
    temporary = _temporary(folder, run)
    if is_remote(folder):
        objects.remove_below(folder)
        return
    try:
        os.rename(folder, temporary)
    except FileNotFoundError:
        return
    shutil.rmtree(temporary, ignore_errors=True)  # it is out of sight: what will not go now is swept later


def sweep_temporaries(folder: str, run_is_alive: Callable[[str], bool]) -> int:
    """Remove, everywhere under `folder`, the temporaries of runs that are no longer alive; returns how many.

    `run_is_alive(run)` is asked once for each run id found. Object stores have none.
    """
    if is_remote(folder):
        return 0
    alive: dict[str, bool] = {}
    swept = 0
    for where, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            found = _TEMPORARY.fullmatch(name)
            if not found:
                continue
            run = found["run"]
            if run not in alive:
                alive[run] = run_is_alive(run)
            if not alive[run]:
                _remove(os.path.join(where, name))
                swept += 1
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]
    return swept


def _remove(path: str) -> None:
    """Remove a temporary file or folder that another sweep may be removing as well."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove_file(path)


def _is_listed(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


def _temporary(path: str, run: str) -> str:
    if not _RUN.fullmatch(run):
        raise ValueError(f"run id {run!r} cannot name a temporary file: use letters, digits, '_' and '.' only")
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, f".tmp-{run}-{secrets.token_hex(8)}-{name}")
