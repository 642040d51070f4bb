"""The image manifest: which images a data set has, with id, version, split and label, read from a folder.

An image's id is its path relative to the data set's root, so a data set that is copied or moved keeps its results.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import yaml

from prompts.descriptor_file import UniqueKeyLoader
from stages.settings import Settings

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
SPLITS = ("support", "validation", "query")

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


class SplitFolders(Settings):
    """Sub-folders of the data set that hold its splits; only `query` is needed."""

    query: str
    """images to classify"""
    validation: str | None = None
    """labelled images for choosing settings"""
    support: str | None = None
    """labelled images for few-shot caches"""


class DatasetSettings(Settings):
    """A folder of images: a sub-folder a class, or flat and unlabelled."""

    kind: Literal["folder"] = "folder"
    path: str
    """the folder"""
    splits: SplitFolders | None = None
    """sub-folders of the splits; without it the whole folder is the query split"""
    classes: str | None = None
    """class names, one a line, or folder name -> class name (JSON, YAML); needed when nothing is labelled"""
    version: Literal["mtime", "content"] = "mtime"
    """how a changed image is recognised: by size and modification time, or by a hash of its bytes"""


class DatasetError(ValueError):
    """A data set that cannot be read as described; the message says what is wrong and what would be right."""


def read_manifest(dataset: DatasetSettings) -> tuple[pa.Table, tuple[str, ...]]:
    """List the images of a data set.

    Returns the manifest (columns of `SCHEMA`, sorted by id) and the class names in order. Raises DatasetError.
    """
    root = Path(dataset.path)
    if not root.is_dir():
        raise DatasetError(f"dataset.path: no folder {root}")
    folder_names = _read_classes(Path(dataset.classes)) if dataset.classes else None
    rows = []
    for split, folder in _split_folders(root, dataset.splits):
        for path, label in _images(folder):
            rows.append(_row(path, root, split, label, dataset.version))
    _check_splits(rows)
    if not rows:
        raise DatasetError(f"dataset.path: no images under {root} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    rows.sort(key=lambda row: row["id"])
    labels = sorted({row["class"] for row in rows if row["class"] is not None})
    names = _name_labels(labels, folder_names, dataset)
    for row in rows:
        row["class"] = names.get(row["class"])
    if folder_names is not None:
        classes = tuple(dict.fromkeys(folder_names.values()))
    else:
        classes = tuple(dict.fromkeys(names[label] for label in labels))
    return pa.Table.from_pylist(rows, schema=SCHEMA), classes


def _split_folders(root: Path, splits: SplitFolders | None) -> Iterator[tuple[str, Path]]:
    if splits is None:
        inside = {entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
        if inside and inside <= {"train", "test", "val", "valid", "validation", "query", "support"}:
            raise DatasetError(
                f"dataset.splits: the folders {', '.join(sorted(inside))} of {root} look like splits, not classes. "
                f"Say which is which, for example splits: {{query: {sorted(inside)[0]}}}"
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
    """Every image below a split's folder with the name of its class folder, or None when it lies at the top."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            for place, folders, names in os.walk(entry.path, followlinks=True):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in sorted(names):
                    if _is_image(name):
                        yield Path(place) / name, entry.name
        elif _is_image(entry.name):
            yield Path(entry.path), None


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
        if how == "content":
            return hashlib.sha256(path.read_bytes()).hexdigest()[:20]
        status = path.stat()
    except OSError:
        status = path.lstat()  # a link to nowhere, or a file not ours to read: listed here, rejected when it is decoded
    return f"{status.st_size}-{status.st_mtime_ns}"


def _read_classes(path: Path) -> dict[str, str]:
    """Folder name -> class name; a plain list names its own folders."""
    if not path.is_file():
        raise DatasetError(f"dataset.classes: no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"dataset.classes: {path} is not UTF-8 text") from None
    if path.suffix.lower() in {".yaml", ".yml", ".json"}:
        try:
            value = yaml.load(text, Loader=UniqueKeyLoader)
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise DatasetError(f"dataset.classes: {path} is not valid YAML or JSON: {problem}") from None
    else:
        value = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value):
        repeated = sorted({name for name in value if value.count(name) > 1})
        if repeated:
            raise DatasetError(f"dataset.classes: {path} names {', '.join(repeated)} more than once")
        return {name: name for name in value}
    if isinstance(value, dict) and value and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    raise DatasetError(
        f"dataset.classes: {path} should hold class names, one a line, or a mapping of folder names to class names"
    )


def _name_labels(
    labels: Sequence[str], folder_names: dict[str, str] | None, dataset: DatasetSettings
) -> dict[str, str]:
    """Folder name -> class name for every label of the data set."""
    if folder_names is None:
        if not labels:
            raise DatasetError(
                f"dataset.classes: the images of {dataset.path} lie in no class folders, so the classes must be named "
                "in a file, one a line"
            )
        return {label: label for label in labels}
    plain = {name.replace("_", " "): name for name in folder_names}
    found = {label: plain.get(label.replace("_", " ")) for label in labels}
    unknown = [label for label, name in found.items() if name is None]
    if unknown:
        raise DatasetError(
            f"dataset.classes: {dataset.classes} does not name the folders {', '.join(unknown[:5])}"
            f"{' and others' if len(unknown) > 5 else ''} of {dataset.path}"
        )
    return {label: folder_names[name] for label, name in found.items() if name is not None}
