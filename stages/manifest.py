"""The image manifest: which images a data set has, with id, version, split and label, read from a folder.

An image's id is its path relative to the data set's root, so a data set that is copied or moved keeps its results.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa

from stages.class_names import name_labels, read_class_names
from stages.dataset import DatasetError, DatasetSettings, SplitFolders

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
SPLITS = ("support", "validation", "query")
SPLIT_NAMES = {
    "query": ("test", "testing", "query"),
    "validation": ("val", "valid", "validation"),
    "support": ("train", "training", "support"),
}
"""What folders that hold a split are called, in any case."""

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("class", pa.string()),
    ]
)


def read_manifest(dataset: DatasetSettings) -> tuple[pa.Table, tuple[str, ...]]:
    """List the images of a data set.

    Returns the manifest (columns of `SCHEMA`, sorted by id) and the class names in order. Raises DatasetError.
    """
    root = Path(dataset.path)
    if not root.is_dir():
        raise DatasetError(f"dataset.path: no folder {root}")
    folder_names = read_class_names(Path(dataset.classes)) if dataset.classes else None
    rows = []
    for split, folder in _split_folders(root, dataset.splits):
        for path, label in _images(folder):
            rows.append(_row(path, root, split, label, dataset.version))
    _check_splits(rows)
    if not rows:
        raise DatasetError(f"dataset.path: no images under {root} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    rows.sort(key=lambda row: row["id"])
    labels = sorted({row["class"] for row in rows if row["class"] is not None})
    names = name_labels(labels, folder_names, dataset)
    for row in rows:
        row["class"] = names.get(row["class"])
    if folder_names is not None:
        classes = tuple(dict.fromkeys(folder_names.values()))
    else:
        classes = tuple(dict.fromkeys(names[label] for label in labels))
    return pa.Table.from_pylist(rows, schema=SCHEMA), classes


def proposed_splits(root: Path) -> dict[str, str]:
    """Split -> sub-folder, where the folders of a data set look like splits; nothing where they look like classes.

    Only folders with images count, so annotations or a store of fieldmark beside them change nothing. They look like
    splits when two are named after different splits (`test` and `train`), whatever else is there, or when no other
    folder has images. Images to classify are those for testing, else for validation, else for training.
    """
    named = sorted(folder for folder in _sub_folders(root) if _split_named(folder) and _has_images(root / folder))
    found: dict[str, str] = {}
    for split, names in SPLIT_NAMES.items():
        of_split = [folder for folder in named if _split_named(folder) == split]
        if of_split:
            found[split] = min(of_split, key=lambda folder: names.index(folder.lower()))
    if len(found) < 2:
        others = (folder for folder in _sub_folders(root) if folder not in named)
        at_the_top = any(_is_image(entry.name) for entry in os.scandir(root) if entry.is_file())
        if not found or at_the_top or any(_has_images(root / folder) for folder in others):
            return {}
    if "query" not in found:
        first = next(iter(found))
        found = {"query": found.pop(first), **found}
    return found


def _split_named(folder: str) -> str | None:
    return next((split for split, names in SPLIT_NAMES.items() if folder.lower() in names), None)


def _has_images(folder: Path) -> bool:
    return next(_images_below(folder), None) is not None


def _split_folders(root: Path, splits: SplitFolders | None) -> Iterator[tuple[str, Path]]:
    if splits is None:
        if proposed := proposed_splits(root):
            flow = ", ".join(f"{split}: {name}" for split, name in proposed.items())
            raise DatasetError(
                f"dataset.splits: the folders {', '.join(sorted(proposed.values()))} of {root} look like splits, not "
                f"classes. Say which is which, for example splits: {{{flow}}}, or splits: {{query: .}} for classes"
            )
        yield "query", root
        return
    for split in SPLITS:
        name = getattr(splits, split)
        if name is None:
            continue
        folder = root / name
        if not folder.is_dir():
            raise DatasetError(f"dataset.splits.{split}: no folder {folder}")
        if ".." in folder.parts or not folder.is_relative_to(root):
            raise DatasetError(
                f"dataset.splits.{split}: {name} lies outside {root}; splits are sub-folders of dataset.path"
            )
        yield split, folder


def _check_splits(rows: Sequence[dict[str, str | None]]) -> None:
    """An image belongs to one split: results on an image that also serves as a shot would mean nothing."""
    split_of: dict[str | None, str | None] = {}
    for row in rows:
        if (other := split_of.setdefault(row["id"], row["split"])) != row["split"]:
            raise DatasetError(
                f"dataset.splits: {row['id']} lies in both {other} and {row['split']}; splits share no image"
            )


def _images(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Every image below a split's folder with the name of its class folder, or None when it lies at the top.

    Stores of fieldmark are passed over: by default they lie in `runs` beside the job file, which may be in the folder.
    """
    for name in _sub_folders(folder):
        for path in _images_below(folder / name):
            yield path, name
    for entry in os.scandir(folder):
        if _is_image(entry.name) and not entry.is_dir():
            yield Path(entry.path), None


def _images_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=True):
        if "tables" in folders and _is_store(Path(place)):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if _is_image(name))


def _sub_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _is_store(folder: Path) -> bool:
    """Whether a folder is laid out as `Inputs.shard_table` says: tables/STAGE/FINGERPRINT/table.json."""
    return next(folder.glob("tables/*/*/table.json"), None) is not None


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _row(path: Path, root: Path, split: str, label: str | None, how: str) -> dict[str, str | None]:
    name = os.fsencode(path)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise DatasetError(f"dataset.path: the name of {name!r} is not UTF-8 text; rename it") from None
    identity = path.relative_to(root).as_posix()
    version = _version(path, how)
    return {
        "key": f"{identity}@{version}",
        "id": identity,
        "version": version,
        "uri": str(path),
        "split": split,
        "class": label,
    }


def _version(path: Path, how: str) -> str:
    try:
        status = path.stat()
        if how == "content":
            return _content_hash(path, status.st_size, status.st_mtime_ns)
    except OSError:
        status = path.lstat()  # a link to nowhere, or a file not ours to read: listed here, rejected when it is decoded
    return f"{status.st_size}-{status.st_mtime_ns}"


@cache  # a run plans about ten times, and each plan reads the manifest anew
def _content_hash(path: Path, size: int, mtime_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:20]
