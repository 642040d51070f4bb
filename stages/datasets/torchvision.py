"""Data sets that lie on disk as torchvision lays them out, read without torchvision: listing them imports no torch.

Labels, their order, splits and files are torchvision's, except that files are not hashed (Flowers102 and Places365
hash theirs each time) and nothing is downloaded, unpacked or written. Labels that are paths or code (EuroSAT, SUN397,
Places365) are spoken as words.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from stages.dataset import DatasetError, SplitNames, TorchvisionDataset
from stages.datasets.folder import list_class_folders
from stages.datasets.imagenet import wnid_names
from stages.datasets.layouts import LAYOUTS, Layout, Sample
from stages.datasets.listing import Entry, Listing, check_text, file_version
from stages.datasets.splits import SPLITS


def list_torchvision(dataset: TorchvisionDataset) -> Listing:
    """The images of a data set of torchvision. Raises DatasetError, saying where missing files should lie."""
    root = os.path.abspath(dataset.root)
    if not os.path.isdir(root):
        raise DatasetError(f"dataset.root: no folder {root}")
    if dataset.name == "ImageFolder":
        folders = list_class_folders(root, dataset.splits, dataset.version, "dataset.root")
        return replace(folders, alphabetical=True)
    layout = LAYOUTS[dataset.name]
    chosen = _choose_splits(dataset, layout)
    missing = [place for name in chosen for place in layout.missing(root, name)]
    if missing:
        raise DatasetError(
            f"dataset.root: {dataset.name} should lie in {root} as torchvision lays it out; missing: "
            f"{', '.join(dict.fromkeys(missing))}. fieldmark downloads no data sets"
            f"{_other_splits(layout)}"
        )
    samples = {name: _read(layout, root, name, dataset.name) for name in chosen}
    own = _classes(dataset, layout, root, [sample for found in samples.values() for sample in found])
    empty = f"dataset.root: {dataset.name} in {root} has no images"
    return Listing(_entries(root, dataset.version, chosen, samples), root, empty, own=own)


def _choose_splits(dataset: TorchvisionDataset, layout: Layout) -> dict[str, str]:
    """The data set's own split -> ours."""
    if not layout.splits:
        if dataset.splits is not None:
            raise DatasetError(f"dataset.splits: {dataset.name} has no splits; leave them out, or use a `table`")
        return {"": "query"}
    splits = dataset.splits or SplitNames(**layout.default)
    chosen: dict[str, str] = {}
    for split in SPLITS:
        for name in splits.names(split):
            if name not in layout.splits:
                raise DatasetError(
                    f"dataset.splits.{split}: {dataset.name} has no split {name!r}; it has {', '.join(layout.splits)}"
                )
            if name in chosen:
                raise DatasetError(f"dataset.splits: {name} is named twice")
            chosen[name] = split
    return chosen


def _other_splits(layout: Layout) -> str:
    return (
        f"; with some splits alone say so, for example splits: {{query: {layout.splits[-1]}}}" if layout.splits else ""
    )


def _read(layout: Layout, root: str, split: str, name: str) -> list[Sample]:
    try:
        return list(layout.samples(root, split))
    except DatasetError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # files of any content
        raise DatasetError(
            f"dataset.root: the files of {name} in {root} are not as they should be: {type(error).__name__}: {error}"
        ) from None


def _classes(dataset: TorchvisionDataset, layout: Layout, root: str, samples: list[Sample]) -> Mapping[str, str]:
    """Label -> class name, in torchvision's order."""
    if dataset.name == "ImageNet":
        labels = sorted({sample.label for sample in samples})
        return wnid_names(root, labels) if dataset.classes is None else {label: label for label in labels}
    if layout.classes is not None:
        return {label: layout.spoken(label) for label in layout.classes(root)}
    ordered = sorted({(sample.index, sample.label) for sample in samples if sample.label is not None})
    return {label: layout.spoken(label) for _, label in ordered}


def _entries(
    root: str, version: str, chosen: Mapping[str, str], samples: Mapping[str, list[Sample]]
) -> Iterator[Entry]:
    for name, split in chosen.items():
        for sample in samples[name]:
            check_text(sample.path, "dataset.root")
            path = os.path.join(root, sample.path)
            yield Entry(sample.path, file_version(path, version), path, split, sample.label)
