"""Which files hold which split, for data sets that come in shards: folders, files, patterns."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from stages.dataset import DatasetError, SplitNames
from stages.datasets.listing import check_text
from stages.datasets.splits import SPLITS, split_named

_BRACES = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")


class ShardFile(NamedTuple):
    """A file with images of one split; `name` is its path relative to the data set, the same wherever it lies."""

    split: str
    name: str
    path: str


def find_shards(path: str | list[str], splits: SplitNames | None, suffix: str) -> list[ShardFile]:
    """The files that `path` names, or that `splits` name in it, sorted by name. `suffix` is `.tar` or `.parquet`.

    Raises DatasetError for a pattern that finds nothing, a file of another kind, and one that is in two splits.
    """
    if splits is None:
        places = [path] if isinstance(path, str) else path
        found = {"query": [file for place in places for file in _files(place, suffix, "dataset.path")]}
    else:
        if not isinstance(path, str) or not os.path.isdir(path):
            raise DatasetError(
                f"dataset.path: {path} is not a folder; with splits it is the folder that their patterns start from"
            )
        found = {
            split: [
                file
                for name in splits.names(split)
                for file in _files(os.path.join(path, name), suffix, f"dataset.splits.{split}")
            ]
            for split in SPLITS
        }
    split_of: dict[str, str] = {}
    for split, files in found.items():
        for file in files:
            if split_of.setdefault(file, split) != split:
                raise DatasetError(f"dataset.splits: {file} lies in both {split_of[file]} and {split}")
    if not split_of:
        raise DatasetError("dataset.path: names no files")
    root = (
        path
        if isinstance(path, str) and os.path.isdir(path)
        else os.path.commonpath(list(map(os.path.dirname, split_of)))
    )
    return sorted(
        (ShardFile(split, os.path.relpath(file, root), file) for file, split in split_of.items()),
        key=lambda shard: shard.name,
    )


def check_split_names(path: str | list[str], shards: Sequence[ShardFile], splits: SplitNames | None) -> None:
    """Raise DatasetError where shards of a folder are called after several splits and nobody says which is which."""
    if splits is not None or not isinstance(path, str) or not os.path.isdir(path):
        return
    patterns: dict[str, str] = {}
    for shard in shards:
        parts = shard.name.split("/")
        for depth, part in enumerate(parts):
            word = re.split(r"[-_.0-9]", part, maxsplit=1)[0] if depth == len(parts) - 1 else part
            if split := split_named(word):
                pattern = "/".join([*parts[:depth], f"{word}*" if depth == len(parts) - 1 else word])
                patterns.setdefault(split, pattern)
    if len(patterns) > 1:
        flow = ", ".join(f"{split}: {patterns[split]!r}" for split in reversed(SPLITS) if split in patterns)
        raise DatasetError(
            f"dataset.splits: the files of {path} are called after splits. Say which is which, for example "
            f"splits: {{{flow}}}, or splits: {{query: .}} for all of them"
        )


def _files(place: str, suffix: str, key: str) -> list[str]:
    """Absolute paths of the files of a folder, a file or a pattern. What is there by that very name is no pattern."""
    found: list[str] = []
    folder, pattern = _existing_folder(place)
    for name in [place] if os.path.exists(place) else [os.path.join(folder, one) for one in _expanded(pattern)]:
        if os.path.isdir(name):
            inside = glob.glob(f"**/*{suffix}", root_dir=name, recursive=True)
            if not inside:
                raise DatasetError(f"{key}: no {suffix} files under {name}{_compressed_beside(name, suffix)}")
            found.extend(os.path.join(name, file) for file in inside)
        elif os.path.exists(name):
            found.append(name)
        else:
            folder, pattern = _existing_folder(name)
            matches = glob.glob(pattern, root_dir=folder or None, recursive=True)
            if not matches:
                raise DatasetError(f"{key}: no file {name}")
            found.extend(filter(os.path.isfile, (os.path.join(folder, match) for match in matches)))
    for file in found:
        check_text(file, key)
        if not file.lower().endswith(suffix):
            raise DatasetError(f"{key}: {file} is no {suffix} file{_unpack_first(file)}")
    return sorted(map(os.path.abspath, found))


def _existing_folder(place: str) -> tuple[str, str]:
    """The longest beginning of a pattern that is a folder, so that `[` and `{` in its name are no pattern; the rest."""
    folder, rest = place, ""
    while folder and not os.path.isdir(folder):
        folder, name = os.path.split(folder)
        rest = os.path.join(name, rest) if rest else name
    return folder, rest


def _compressed_beside(folder: str, suffix: str) -> str:
    packed = next(iter(glob.glob(f"**/*{suffix}.*z*", root_dir=folder, recursive=True)), None)
    return "" if packed is None else f", only packed ones such as {packed}{_unpack_first(packed)}"


def _unpack_first(file: str) -> str:
    packed = file.lower().endswith((".gz", ".tgz", ".bz2", ".xz", ".zst"))
    return "; one image of a packed tar cannot be read without all before it, so unpack it first" if packed else ""


def _expanded(pattern: str) -> list[str]:
    """`a-{000..002}` is three names, `{a,b}` two, in order."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    if limits := _RANGE.fullmatch(found[1]):
        first, last = limits.groups()
        inner = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        inner = found[1].split(",")
    return [name for part in inner for name in _expanded(pattern[: found.start()] + part + pattern[found.end() :])]
