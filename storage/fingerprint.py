"""Digests: short names for settings, for sets of rows and for weights files (architecture.md 4).

Equal values give equal digests on every machine and Python version; anything ambiguous is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable

from storage import files

DIGEST_LENGTH = 20  # hex digits: 80 bits, so a clash among a billion tables or shards has odds of one in a million


def digest(value: object) -> str:
    """20 hex digits for a value made of None, bool, int, float, str, list, tuple and dict with str keys.

    The order of a dict's keys does not matter, a tuple counts as a list, -0.0 as 0.0; 1, 1.0 and True differ.
    TypeError names the place of anything else (numpy numbers, enums, paths, sets), ValueError that of a float
    that is not finite.
    """
    return _hash(_canonical(value, "value"))


def digest_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """20 hex digits that stand for a collection of (key, content hash) pairs, whatever their order."""
    ordered = sorted(pairs)
    for pair in ordered:
        if type(pair) is not tuple or len(pair) != 2 or not all(type(part) is str for part in pair):
            raise TypeError(f"a pair of two str is wanted, (key, content hash); got {pair!r}")
    return _hash(ordered)


def file_sha256(path: str, cache: str | None = None) -> str:
    """All 64 hex digits of a file's sha256. FileNotFoundError where there is none.

    `cache` is the path of a JSON file that remembers hashes by path, size and modification time, so that
    gigabytes of weights are read once. It is made when missing, and anew where it cannot be parsed; in an object
    store it is asked once a process for a file that stays as it is.
    """
    path = os.path.abspath(path)
    before = _stamp(path)
    if cache is None:
        return _hash_file(path)
    if not files.is_remote(cache):
        return _remembered_sha256(path, cache, before)
    known = _asked.get((cache, path))
    if known is None or known[0] != before:
        known = _asked[cache, path] = (before, _remembered_sha256(path, cache, before))
    return known[1]


_asked: dict[tuple[str, str], tuple[list[int], str]] = {}
"""(cache, file) -> stamp and hash of the file, as this process found them in an object store or put them there"""


def _remembered_sha256(path: str, cache: str, before: list[int]) -> str:
    entry = _read_cache(cache).get(path)
    if isinstance(entry, dict) and entry.get("stamp") == before and isinstance(entry.get("sha256"), str):
        return entry["sha256"]
    found = _hash_file(path)
    if _stamp(path) == before:  # a file that changed while it was read is not worth remembering
        remembered = {**_read_cache(cache), path: {"stamp": before, "sha256": found}}
        files.write_atomic(cache, json.dumps(remembered, indent=1, sort_keys=True).encode(), run="hashes")
    return found


def _hash_file(path: str) -> str:
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


def _canonical(value: object, where: str) -> object:
    """The same value in types that JSON writes in one way only; a subclass may print differently."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which has no digest: a finite number is wanted")
        return value + 0.0  # -0.0 + 0.0 is 0.0
    if kind in (list, tuple):
        return [_canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise TypeError(f"{where} has the key {key!r} of type {type(key).__name__}: keys must be str")
        return {key: _canonical(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, which has no digest: "
        "None, bool, int, float, str, list, tuple or dict is wanted"
    )


def _hash(value: object) -> str:
    # ASCII, since file names that are not valid UTF-8 hold lone surrogates, which UTF-8 cannot encode.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:DIGEST_LENGTH]


def _stamp(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _read_cache(path: str) -> dict[str, object]:
    try:
        remembered = json.loads(files.read_bytes(path))
    except (FileNotFoundError, ValueError):  # JSON and UTF-8 errors are ValueErrors
        return {}
    return remembered if isinstance(remembered, dict) else {}
