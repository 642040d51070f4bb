"""What a language model answered, kept for ever: each completion is paid for once.

A completion is stored as soon as it arrives, as `<key>.json`, and many such files are made into one Arrow file when a
run ends. A file is only removed after another that holds all it held is there, and readers that find one gone look
again, so that any number of runs may read, write and compact the same folder. Nothing else removes completions: `gc`
does not know them.

A file that another program cut is an error that names it where its question is asked for; `compact` leaves it alone.
Of two answers to one question, which two runs asked at once, either may be the one that stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import files
from storage.shard_files import CorruptShard, encode_shard, read_shard

_MANY = 16
"""Arrow files of a folder from which compacting makes one of them: a store is rewritten once in so many runs."""
_AT_ONCE = 16
"""Files that are read at once."""
_KEY = re.compile(r"[0-9a-f]{64}")


class BrokenCompletion(RuntimeError):
    """A stored completion that cannot be read; the message names its file and says what to do."""


def completion_key(endpoint: str, body: Mapping[str, Any], repeat: int) -> str:
    """What a completion is stored by: sha256 in hex of who is asked, the whole request body, and which repeat of it.

    `endpoint` is an address without credentials. The order of the body's keys does not matter; TypeError or ValueError
    for what JSON cannot say.
    """
    told = json.dumps([endpoint, body, repeat], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(told.encode()).hexdigest()


class CompletionStore:
    """Completions in one or more folders, local or of an object store: the first one's count first, all are written."""

    def __init__(self, *folders: str):
        if not folders:
            raise ValueError("a store of completions needs a folder")
        self._folders = tuple(dict.fromkeys(folders))

    def get_many(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The completions of those of the keys that some folder holds. BrokenCompletion names a file that is cut."""
        wanted = dict.fromkeys(keys)
        found: dict[str, dict[str, Any]] = {}
        for folder in self._folders:
            found.update(_find(folder, [key for key in wanted if key not in found]))
        return {key: found[key] for key in wanted if key in found}

    def put(self, key: str, completion: Mapping[str, Any], run: str) -> None:
        """Store a completion in every folder, at once and whole; `run` is the id of the writing run.

        ValueError for a key that `completion_key` did not make. May be called from many threads.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a completion: 64 hexadecimal digits, as completion_key makes them")
        for folder in self._folders:
            _write(folder, key, completion, run)

    def spread(self, keys: Iterable[str], run: str) -> None:
        """Write those of these completions that some folder lacks, and another one has, into it."""
        if len(self._folders) < 2 or not (wanted := list(keys)):
            return
        held = {folder: _find(folder, wanted) for folder in self._folders}
        everything = {key: said for found in held.values() for key, said in found.items()}
        lacking = [(folder, key) for folder, found in held.items() for key in everything if key not in found]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(lambda place: _write(*place, everything[place[1]], run), lacking))

    def compact(self, run: str) -> int:
        """Make one file of a folder's many; returns how many files went into others.

        May be interrupted at any moment, and run by many at once. Broken files stay where they are.
        """
        return sum(_compact(folder, run) for folder in self._folders)


def _write(folder: str, key: str, completion: Mapping[str, Any], run: str) -> None:
    data = json.dumps(dict(completion), ensure_ascii=False, allow_nan=False).encode()
    files.write_atomic(os.path.join(folder, f"{key}.json"), data, run)


def _find(folder: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The completions of a folder.

    Single files are listed first: one that was removed before had gone into an Arrow file that is listed after. If an
    Arrow file goes or comes while we look, others are compacting it, and what is missing still may lie in the new one.
    """
    if not keys:
        return {}
    found = _find_single(folder, keys)
    listed: list[str] | None = None
    while (seen := files.list_files(folder, ".arrow")) != listed:
        listed = seen
        for path in listed:
            missing = [key for key in keys if key not in found]
            if missing:
                with suppress(FileNotFoundError):  # compacted: the next listing differs
                    found.update(_find_compacted(path, missing))
        if len(found) == len(keys):
            break
    return found


def _find_single(folder: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of the files of one completion; those that are compacted meanwhile are left out."""
    listed = {os.path.basename(path).removesuffix(".json"): path for path in files.list_files(folder, ".json")}
    there = [(key, listed[key]) for key in keys if key in listed]
    read = _read_each([path for _, path in there])
    return {key: _parsed(data, path) for (key, path), data in zip(there, read, strict=True) if data is not None}


def _read_each(paths: Sequence[str]) -> list[bytes | None]:
    """The bytes of each file, None for one that is gone."""
    if not paths or not files.is_remote(paths[0]):
        return [_read(path) for path in paths]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(_read, paths))


def _read(path: str) -> bytes | None:
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        return None


def _find_compacted(path: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = _rows(path)
    rows = rows.filter(pc.is_in(rows["key"], value_set=pa.array(keys, pa.string())))
    texts = rows["completion"].to_pylist()
    return {key: _parsed(text, path) for key, text in zip(rows["key"].to_pylist(), texts, strict=True)}


def _compact(folder: str, run: str) -> int:
    """First the file that holds all, then the removal of those it was made of."""
    singles = files.list_files(folder, ".json")
    compacted = files.list_files(folder, ".arrow")
    held: dict[str, str] = {}
    absorbed: list[str] = []
    for path in compacted if len(compacted) >= _MANY else []:
        with suppress(FileNotFoundError, BrokenCompletion):
            rows = _rows(path)
            held.update(zip(rows["key"].to_pylist(), rows["completion"].to_pylist(), strict=True))
            absorbed.append(path)
    for path, data in zip(singles, _read_each(singles), strict=True):
        key = os.path.basename(path).removesuffix(".json")
        with suppress(BrokenCompletion):
            if data is not None and _KEY.fullmatch(key):
                _parsed(data, path)
                held[key] = data.decode()
                absorbed.append(path)
    if len(absorbed) < 2:
        return 0
    keys = sorted(held)
    rows = pa.table({"key": pa.array(keys, pa.string()), "completion": pa.array([held[key] for key in keys])})
    data = encode_shard(rows)
    target = os.path.join(folder, f"{hashlib.sha256(data).hexdigest()}.arrow")
    files.write_atomic(target, memoryview(data), run)
    gone = [path for path in absorbed if path != target]
    _remove_each(gone)
    return len(gone)


def _remove_each(paths: Sequence[str]) -> None:
    if not files.is_remote(paths[0]):
        for path in paths:
            files.remove_file(path)
        return
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(files.remove_file, paths))


def _rows(path: str) -> pa.Table:
    """Columns key and completion, its JSON. FileNotFoundError where there is no such file any more."""
    try:
        return read_shard(path).select(["key", "completion"])
    except (CorruptShard, KeyError) as error:
        raise _broken(path, "Arrow file of completions", "the questions in it are asked again") from error


def _parsed(text: str | bytes, path: str) -> dict[str, Any]:
    try:
        completion = json.loads(text)
    except ValueError:
        completion = None
    if not isinstance(completion, dict):
        raise _broken(path, "completion in JSON", "its question is asked again")
    return completion


def _broken(path: str, kind: str, then: str) -> BrokenCompletion:
    return BrokenCompletion(f"{path} is no whole {kind}: another program cut or changed it. Remove it, and {then}.")
