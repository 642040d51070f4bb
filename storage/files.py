"""The only place where storage touches a file system: local paths as plain strings.

Everything that a reader can see is complete: files are written under a temporary name in the same folder and
renamed. A temporary is called `.tmp-<run>-<random>-<name>`, so that what a dead run left behind can be told
from what a living one is writing. Another kind of store (an object store) needs these functions, no others.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import PurePosixPath

import pyarrow as pa

_RUN = re.compile(r"[A-Za-z0-9_.]+")
_TEMPORARY = re.compile(r"\.tmp-(?P<run>[A-Za-z0-9_.]+)-[0-9a-f]{16}-.+", re.DOTALL)


def write_atomic(path: str, data: bytes | memoryview, run: str) -> None:
    """Put `data` at `path`, whole or not at all, replacing what was there; missing folders are made.

    `run` is the id of the writing run: letters, digits, `_` and `.` (ValueError otherwise). An OSError (disk
    full, no permission) reaches the caller with the temporary removed and the old file, if there was one,
    untouched.
    """
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
    with open(path, "rb") as file:
        return file.read()


def open_mapped(path: str) -> pa.NativeFile:
    """A file for random reads that copies nothing until it is touched; what was read outlives its closing."""
    return pa.memory_map(path, "r")


def exists(path: str) -> bool:
    """Whether there is a file or folder of that name."""
    return os.path.exists(path)


def modified(path: str) -> float:
    """When a file was last changed, in seconds since 1970."""
    return os.stat(path).st_mtime


def list_files(folder: str, suffix: str) -> list[str]:
    """Sorted paths of the visible files in `folder` itself that end in `suffix`; none if it is missing."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in sorted(names) if name.endswith(suffix) and name[0] != "."]


def list_folders(folder: str) -> list[str]:
    """Sorted paths of the visible folders in `folder` itself; none if it is missing."""
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
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:  # a temporary that was renamed while we looked
                continue
    return total


def remove_folder(folder: str, run: str) -> None:
    """Make a folder vanish at once, then free its space; a crash in between leaves a temporary to sweep."""
    temporary = _temporary(folder, run)
    try:
        os.rename(folder, temporary)
    except FileNotFoundError:
        return
    shutil.rmtree(temporary, ignore_errors=True)  # it is out of sight: what will not go now is swept later


def sweep_temporaries(folder: str, run_is_alive: Callable[[str], bool]) -> int:
    """Remove, everywhere under `folder`, the temporaries of runs that are no longer alive; returns how many.

    `run_is_alive(run)` is asked once for each run id found.
    """
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
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _temporary(path: str, run: str) -> str:
    if not _RUN.fullmatch(run):
        raise ValueError(f"run id {run!r} cannot name a temporary file: use letters, digits, '_' and '.' only")
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, f".tmp-{run}-{secrets.token_hex(8)}-{name}")
