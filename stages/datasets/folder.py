"""A folder of images: its splits, its class folders and what lies in them.

An image's id is its path relative to the data set's root, so a data set that is copied or moved keeps its results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from stages.dataset import DatasetError, FolderDataset, SplitNames
from stages.datasets.listing import IMAGE_SUFFIXES, Entry, Listing, check_text, file_version, is_image
from stages.datasets.splits import SPLIT_NAMES, SPLITS, split_named
from storage.filesystems import is_object_uri


def list_folder(dataset: FolderDataset) -> Listing:
    """The images of a folder, on a disk or in an object store. Raises DatasetError."""
    if is_object_uri(dataset.path):
        from stages.datasets.object_folder import list_object_folder

        return list_object_folder(dataset)
    splits = None if dataset.splits is None else SplitNames(**dataset.splits.model_dump())
    return list_class_folders(dataset.path, splits, dataset.version)


def list_class_folders(root: str, splits: SplitNames | None, version: str, key: str = "dataset.path") -> Listing:
    """The images below `root`, labelled by class folders; `splits` names sub-folders, and `key` the setting of `root`.

    Raises DatasetError.
    """
    root = os.path.abspath(root)
    if not os.path.isdir(root):
        raise DatasetError(f"{key}: no folder {root}")

    inside = len(root.rstrip("/")) + 1

    def entries() -> Iterator[Entry]:
        for split, folder in _split_folders(root, splits, key):
            for path, label in labelled_images(folder):
                check_text(path, key)
                yield Entry(path[inside:], file_version(path, version), path, split, label)

    looked_for = ", ".join(sorted(IMAGE_SUFFIXES))
    return Listing(entries(), root, f"{key}: no images under {root} (looked for {looked_for})", "folder")


def proposed_splits(root: Path) -> dict[str, str]:
    """Split -> sub-folder, where the folders of a data set look like splits; nothing where they look like classes.

    Only folders with images count, so annotations or a store of fieldmark beside them change nothing. They look like
    splits when two are named after different splits (`test` and `train`), whatever else is there, or when no other
    folder has images. Images to classify are those for testing, else for validation, else for training.
    """
    named = sorted(name for name in _sub_folders(root) if split_named(name) and _has_images(os.path.join(root, name)))

    def alone() -> bool:
        others = (folder for folder in _sub_folders(root) if folder not in named)
        at_the_top = any(is_image(entry.name) for entry in _entries(root) if entry.is_file())
        return not at_the_top and not any(_has_images(os.path.join(root, folder)) for folder in others)

    return splits_among(named, alone)


def splits_among(named: Sequence[str], alone: Callable[[], bool]) -> dict[str, str]:
    """`proposed_splits` of the folders with images that are named like splits; `alone()`: nothing else has any."""
    found: dict[str, str] = {}
    for split, names in SPLIT_NAMES.items():
        of_split = [folder for folder in named if split_named(folder) == split]
        if of_split:
            found[split] = min(of_split, key=lambda folder: names.index(folder.lower()))
    if not found or (len(found) < 2 and not alone()):
        return {}
    if "query" not in found:
        first = next(iter(found))
        found = {"query": found.pop(first), **found}
    return found


def labelled_images(folder: str) -> Iterator[tuple[str, str | None]]:
    """Every image below a split's folder with the name of its class folder, or None when it lies at the top.

    Stores of fieldmark are passed over: by default they lie in `runs` beside the job file, which may be in the folder.
    """
    for name in _sub_folders(folder):
        for path in _images_below(os.path.join(folder, name)):
            yield path, name
    for entry in _entries(folder):
        if is_image(entry.name) and not entry.is_dir():
            yield entry.path, None


def refuse_splits(root: str, proposed: Mapping[str, str]) -> None:
    """Raise DatasetError where folders taken for classes look like splits."""
    if proposed:
        flow = ", ".join(f"{split}: {name}" for split, name in proposed.items())
        raise DatasetError(
            f"dataset.splits: the folders {', '.join(sorted(proposed.values()))} of {root} look like splits, not "
            f"classes. Say which is which, for example splits: {{{flow}}}, or splits: {{query: .}} for classes"
        )


def _split_folders(root: str, splits: SplitNames | None, key: str) -> Iterator[tuple[str, str]]:
    if splits is None:
        refuse_splits(root, proposed_splits(Path(root)))
        yield "query", root
        return
    for split in SPLITS:
        for name in splits.names(split):
            folder = os.path.join(root, name)
            if not os.path.isdir(folder):
                raise DatasetError(f"dataset.splits.{split}: no folder {folder}")
            if ".." in Path(name).parts or not Path(folder).is_relative_to(root):
                raise DatasetError(
                    f"dataset.splits.{split}: {name} lies outside {root}; splits are sub-folders of {key}"
                )
            yield split, os.path.normpath(folder)


def _has_images(folder: str) -> bool:
    return next(_images_below(folder), None) is not None


def _images_below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if "tables" in folders and _is_store(Path(place)):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(place, name) for name in names if is_image(name))


def _sub_folders(folder: str | Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))


def _entries(folder: str | Path) -> Iterator[os.DirEntry]:
    try:
        return os.scandir(folder)
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    """Raise DatasetError for a folder that cannot be read: without it a class would be missing and nobody told."""
    raise DatasetError(f"dataset: the folder {error.filename} cannot be read: {error.strerror or error}") from None


def _is_store(folder: Path) -> bool:
    """Whether a folder is laid out as `Inputs.shard_table` says: tables/STAGE/FINGERPRINT/table.json."""
    return next(folder.glob("tables/*/*/table.json"), None) is not None
