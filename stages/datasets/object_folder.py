"""A folder of images in an object store: what `stages.datasets.folder` reads from a disk, from a listing of its keys.

An image's id is what follows the data set's root in its key, so a folder that is copied to a bucket keeps its results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from stages.dataset import DatasetError, FolderDataset
from stages.datasets.folder import refuse_splits, splits_among
from stages.datasets.listing import IMAGE_SUFFIXES, Entry, Listing, is_image
from stages.datasets.object_versions import content_versions, version_told
from stages.datasets.splits import SPLITS, split_named
from storage.filesystems import check_bucket
from storage.objects import listing

_STORE = re.compile(r"(?P<place>.+)/tables/[^/]+/[^/]+/table\.json")
"""a store of fieldmark, as `Inputs.shard_table` lays it out"""


class _Object(NamedTuple):
    uri: str
    name: str
    """what follows the folder that was listed"""
    told: str

    @property
    def label(self) -> str | None:
        """The sub-folder it lies in, however deep; None at the top."""
        top, inside, _ = self.name.partition("/")
        return top if inside else None


def list_object_folder(dataset: FolderDataset) -> Listing:
    """The images of a folder of a bucket. Raises DatasetError."""
    root = dataset.path.rstrip("/")
    looked_for = ", ".join(sorted(IMAGE_SUFFIXES))
    empty = f"dataset.path: no images under {root} (looked for {looked_for})"
    return Listing(_entries(dataset, root), root, empty, "folder")


def _entries(dataset: FolderDataset, root: str) -> Iterator[Entry]:
    for split, found in _splits(dataset, root):
        versions = [each.told for each in found]
        if dataset.version == "content":
            versions = content_versions([(each.uri, each.told) for each in found])
        for each, version in zip(found, versions, strict=True):
            yield Entry(each.uri[len(root) + 1 :], version, each.uri, split, each.label)


def _splits(dataset: FolderDataset, root: str) -> Iterator[tuple[str, list[_Object]]]:
    if dataset.splits is None:
        found = _images(root)
        tops = {each.label for each in found}
        named = sorted(name for name in tops if name is not None and split_named(name))
        refuse_splits(root, splits_among(named, lambda: tops <= set(named)))
        yield "query", found
        return
    for split in SPLITS:
        name = getattr(dataset.splits, split)
        if name is None:
            continue
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts or name.startswith("/"):
            raise DatasetError(f"dataset.splits.{split}: {name} lies outside {root}; splits are sub-folders of it")
        folder = "/".join([root, *parts])
        found = _images(folder)
        if not found and parts:
            raise DatasetError(f"dataset.splits.{split}: no images under {folder}")
        yield split, found


def _images(folder: str) -> list[_Object]:
    """All images below a folder but hidden ones and those in stores of fieldmark."""
    try:
        found = [(uri[len(folder) + 1 :], uri, info) for uri, info in listing(folder, recursive=True) if info.is_file]
        if not found:
            check_bucket(folder)  # a listing of a missing bucket is empty
    except (OSError, ValueError) as error:
        raise DatasetError(f"dataset.path: {error}") from None
    stores = tuple(f"{store['place']}/" for name, _, _ in found if (store := _STORE.fullmatch(name)))
    return [
        _Object(uri, name, version_told(info))
        for name, uri, info in found
        if is_image(info.base_name) and not name.startswith((".", *stores)) and "/." not in name
    ]
