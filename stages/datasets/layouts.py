"""Where the data sets that torchvision knows keep their images, labels, splits and class names on disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stages.dataset import DatasetError
from stages.datasets import flowers
from stages.datasets.folder import labelled_images
from stages.datasets.matlab import read_matlab


class Sample(NamedTuple):
    """An image of a data set: its path relative to the root, its label, and where the class stands in the order."""

    path: str
    label: str | None
    index: int = 0
    """classes are ordered by this, then by label, where `Layout.classes` does not say"""


@dataclass(frozen=True)
class Layout:
    """How one data set lies on disk."""

    needs: Callable[[str], Sequence[str]]
    """what has to lie under the root for one of its splits"""
    samples: Callable[[str, str], Iterator[Sample]]
    """the images of (root, one of its splits)"""
    splits: tuple[str, ...] = ()
    """its own splits, none where torchvision gives it none"""
    default: Mapping[str, str] = field(default_factory=dict)
    """our split -> its own"""
    classes: Callable[[str], Sequence[str]] | None = None
    """the labels under a root in their order, where a list of them belongs to the data set"""
    spoken: Callable[[str], str] = str
    """the class name of a label, as one would say it in a sentence"""

    def missing(self, root: str, split: str) -> list[str]:
        """What `split` needs and is not there."""
        return [place for place in self.needs(split) if not os.path.exists(os.path.join(root, place))]


def _lines(root: str, *place: str) -> list[str]:
    with open(os.path.join(root, *place), encoding="utf-8") as file:
        return [line for line in file.read().splitlines() if line.strip()]


def _dtd(root: str, split: str) -> Iterator[Sample]:
    for name in _lines(root, f"dtd/dtd/labels/{split}1.txt"):
        yield Sample(f"dtd/dtd/images/{name.strip()}", name.strip().split("/")[0])


def _flowers(root: str, split: str) -> Iterator[Sample]:
    ids = read_matlab(os.path.join(root, "flowers-102/setid.mat"))[
        {"train": "trnid", "val": "valid", "test": "tstid"}[split]
    ]
    labels = read_matlab(os.path.join(root, "flowers-102/imagelabels.mat"))["labels"]
    for number in map(int, ids):
        yield Sample(f"flowers-102/jpg/image_{number:05d}.jpg", flowers.NAMES[int(labels[number - 1]) - 1])


def _food(root: str, split: str) -> Iterator[Sample]:
    for label, names in json.loads("\n".join(_lines(root, f"food-101/meta/{split}.json"))).items():
        for name in names:
            yield Sample(f"food-101/images/{name}.jpg", label)


def _pets(root: str, split: str) -> Iterator[Sample]:
    for line in _lines(root, f"oxford-iiit-pet/annotations/{split}.txt"):
        name, number, *_ = line.split()
        label = " ".join(part.title() for part in name.rsplit("_", 1)[0].split("_"))
        yield Sample(f"oxford-iiit-pet/images/{name}.jpg", label, int(number))


_AIRCRAFT = "fgvc-aircraft-2013b/data"


def _aircraft(root: str, split: str) -> Iterator[Sample]:
    for line in _lines(root, _AIRCRAFT, f"images_variant_{split}.txt"):
        name, label = line.strip().split(" ", 1)
        yield Sample(f"{_AIRCRAFT}/images/{name}.jpg", label)


def _aircraft_classes(root: str) -> list[str]:
    return [line.strip() for line in _lines(root, _AIRCRAFT, "variants.txt")]


def _class_folders(root: str, folder: str) -> Iterator[Sample]:
    for path, label in labelled_images(os.path.join(root, folder)):
        if label is not None:
            yield Sample(os.path.relpath(path, root), label)


def _caltech(root: str, _: str) -> Iterator[Sample]:
    for sample in _class_folders(root, "caltech101/101_ObjectCategories"):
        if sample.label != "BACKGROUND_Google":  # no class, as in torchvision
            yield sample


def _sun(root: str, _: str) -> Iterator[Sample]:
    for label in _sun_classes(root):
        folder = f"SUN397/{label[0]}/{label}"
        if os.path.isdir(os.path.join(root, folder)):
            for name in sorted(os.listdir(os.path.join(root, folder))):
                if name.startswith("sun_") and name.endswith(".jpg"):
                    yield Sample(f"{folder}/{name}", label)


def _sun_classes(root: str) -> list[str]:
    return [line.strip()[3:] for line in _lines(root, "SUN397/ClassName.txt")]


_CARS = {
    "train": ("stanford_cars/devkit/cars_train_annos.mat", "stanford_cars/cars_train"),
    "test": ("stanford_cars/cars_test_annos_withlabels.mat", "stanford_cars/cars_test"),
}


def _cars(root: str, split: str) -> Iterator[Sample]:
    annotations, images = _CARS[split]
    names = _cars_classes(root)
    for row in read_matlab(os.path.join(root, annotations))["annotations"]:
        yield Sample(f"{images}/{row['fname']}", names[int(row["class"]) - 1])


def _cars_classes(root: str) -> list[str]:
    names = read_matlab(os.path.join(root, "stanford_cars/devkit/cars_meta.mat"))["class_names"]
    return [str(name) for name in names]


_PLACES = {"train-standard": "places365_train_standard", "train-challenge": "places365_train_challenge"}


def _places(root: str, split: str) -> Iterator[Sample]:
    variant = split.partition("-")[2]
    large, small = (f"data_{size}_{variant}" if variant else f"{split}_{size}" for size in ("large", "256"))
    folder = large if os.path.isdir(os.path.join(root, large)) else small
    if not os.path.isdir(os.path.join(root, folder)):
        raise DatasetError(f"dataset.root: the images of Places365 should lie in {large} or {small} of {root}")
    names = {number: name for name, number in _places_categories(root)}
    for line in _lines(root, f"{_PLACES.get(split, f'places365_{split}')}.txt"):
        name, number = [*line.split(), None][:2]
        yield Sample(f"{folder}/{name.lstrip('/')}", None if number is None else names[int(number)])


def _places_categories(root: str) -> list[tuple[str, int]]:
    return [(name, int(number)) for name, number in map(str.split, _lines(root, "categories_places365.txt"))]


def _places_classes(root: str) -> list[str]:
    return sorted(name for name, _ in _places_categories(root))


def _scene(label: str) -> str:
    """`/a/apartment_building/outdoor`, in SUN397 without `/a/`, is an apartment building outdoor."""
    return re.sub(r"^/[a-z]/", "", label).replace("/", " ").replace("_", " ")


def _land_use(label: str) -> str:
    """`AnnualCrop` is annual crop."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()


LAYOUTS = {
    "DTD": Layout(
        lambda split: ["dtd/dtd/images", f"dtd/dtd/labels/{split}1.txt"],
        _dtd,
        ("train", "val", "test"),
        {"support": "train", "validation": "val", "query": "test"},
    ),
    "Flowers102": Layout(
        lambda _: ["flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"],
        _flowers,
        ("train", "val", "test"),
        {"support": "train", "validation": "val", "query": "test"},
        lambda _: flowers.NAMES,
    ),
    "Food101": Layout(
        lambda split: ["food-101/images", f"food-101/meta/{split}.json"],
        _food,
        ("train", "test"),
        {"support": "train", "query": "test"},
    ),
    "OxfordIIITPet": Layout(
        lambda split: ["oxford-iiit-pet/images", f"oxford-iiit-pet/annotations/{split}.txt"],
        _pets,
        ("trainval", "test"),
        {"support": "trainval", "query": "test"},
    ),
    "FGVCAircraft": Layout(
        lambda split: [f"{_AIRCRAFT}/{name}" for name in ("images", "variants.txt", f"images_variant_{split}.txt")],
        _aircraft,
        ("train", "val", "trainval", "test"),
        {"support": "train", "validation": "val", "query": "test"},
        _aircraft_classes,
    ),
    "EuroSAT": Layout(
        lambda _: ["eurosat/2750"], lambda root, _: _class_folders(root, "eurosat/2750"), spoken=_land_use
    ),
    "Caltech101": Layout(lambda _: ["caltech101/101_ObjectCategories"], _caltech),
    "SUN397": Layout(lambda _: ["SUN397/ClassName.txt"], _sun, classes=_sun_classes, spoken=_scene),
    "StanfordCars": Layout(
        lambda split: ["stanford_cars/devkit/cars_meta.mat", *_CARS[split]],
        _cars,
        ("train", "test"),
        {"support": "train", "query": "test"},
        _cars_classes,
    ),
    "Places365": Layout(
        lambda split: ["categories_places365.txt", f"{_PLACES.get(split, f'places365_{split}')}.txt"],
        _places,
        ("train-standard", "train-challenge", "test", "val"),
        {"query": "val"},
        _places_classes,
        _scene,
    ),
    "ImageNet": Layout(lambda split: [split], _class_folders, ("train", "val"), {"query": "val"}),
}
