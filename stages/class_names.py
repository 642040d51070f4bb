"""Class names: read from a file, and found for the labels of the images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from prompts.descriptor_file import UniqueKeyLoader
from stages.dataset import DatasetError
from stages.datasets.listing import Listing

_NAMELESS = (
    ("numbers", r"[0-9]+", "file, one a line, the name of number 0 first"),
    ("WordNet ids", r"n[0-9]{8}", "YAML file, for example `n01440764: tench`"),
)
"""What labels are that are no names, though a prompt would take them for such; and what a file says of them."""


@dataclass(frozen=True)
class ClassFile:
    """What a file of class names says."""

    path: str
    names: dict[str, str]
    """label -> class name; in a plain list, every name is its own label"""
    is_list: bool

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.names.values()))

    @cached_property
    def alike(self) -> dict[str, list[str]]:
        """Labels by how they are spoken: `_` counts as a space."""
        found: dict[str, list[str]] = {}
        for label in self.names:
            found.setdefault(label.replace("_", " "), []).append(label)
        return found


def read_class_names(path: str) -> ClassFile:
    """A file of class names: one a line, or a list or mapping in JSON or YAML. Raises DatasetError."""
    file = Path(path)
    if not file.is_file():
        raise DatasetError(f"dataset.classes: no file {path}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"dataset.classes: {path} is not UTF-8 text") from None
    if file.suffix.lower() in {".yaml", ".yml", ".json"}:
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
        return ClassFile(path, {name: name for name in value}, is_list=True)
    if isinstance(value, dict) and value and all(_is_label(k) and isinstance(v, str) for k, v in value.items()):
        return ClassFile(path, {str(label): name for label, name in value.items()}, is_list=False)
    raise DatasetError(
        f"dataset.classes: {path} should hold class names, one a line, or a mapping of folder names to class names"
    )


def name_labels(
    labels: Sequence[str], file: ClassFile | None, listing: Listing
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Label -> class name for every label, and the class names in order. Raises DatasetError.

    With a file a label is found by its exact name, else by one that differs in `_` and space alone, else so by the
    class name that the data set itself gives it. A plain list that does not name every label stands in the order of
    the labels, numbers or the data set's own, if those that it does name stand at their places. Without a file the data
    set's own names count, else the labels themselves, but for numbers and WordNet ids, which are no names.
    """
    if file is None:
        return _own_names(labels, listing)
    found = {label: _found(label, file, listing) for label in labels}
    if file.is_list and not all(found.values()):
        placed = _by_place(labels, file, listing)
        if placed is not None and all(placed[label] in names for label, names in found.items() if names):
            return placed, file.classes
    for label, names in found.items():
        if len({file.names[name] for name in names}) > 1:
            raise DatasetError(
                f"dataset.classes: the {listing.noun} {label!r} of {listing.where} may be "
                f"{' or '.join(map(repr, names))} of {file.path}, which are different classes; "
                f"name the {listing.noun} exactly"
            )
    unknown = [label for label, names in found.items() if not names]
    if unknown:
        raise DatasetError(
            f"dataset.classes: {file.path} does not name the {listing.noun}s {', '.join(unknown[:5])}"
            f"{' and others' if len(unknown) > 5 else ''} of {listing.where}"
        )
    return {label: file.names[names[0]] for label, names in found.items()}, file.classes


def _own_names(labels: Sequence[str], listing: Listing) -> tuple[dict[str, str], tuple[str, ...]]:
    if listing.own is not None:
        unknown = [label for label in labels if label not in listing.own]
        if unknown:
            raise DatasetError(
                f"dataset: {listing.where} has images labelled {', '.join(map(repr, unknown[:5]))}"
                f"{' and others' if len(unknown) > 5 else ''}, and its own list of classes does not name them"
            )
        return dict(listing.own), tuple(dict.fromkeys(listing.own.values()))
    if not labels:
        lack = "lie in no class folders" if listing.noun == "folder" else "have no labels"
        raise DatasetError(
            f"dataset.classes: the images of {listing.where} {lack}, so the classes must be named in a file, one a line"
        )
    for what, pattern, how in _NAMELESS:
        if all(re.fullmatch(pattern, label) for label in labels):
            raise DatasetError(
                f"dataset.classes: the {listing.noun}s of {listing.where} are {what} ({', '.join(labels[:3])}); "
                f"name the classes in a {how}"
            )
    return {label: label for label in labels}, tuple(labels)


def _found(label: str, file: ClassFile, listing: Listing) -> list[str]:
    """The labels of the file that a label of the data set may be."""
    spoken = listing.own.get(label, label) if listing.own is not None else label
    for name in (label, spoken):
        if name in file.names:
            return [name]
        if alike := file.alike.get(name.replace("_", " ")):
            return alike
    return []


def _by_place(labels: Sequence[str], file: ClassFile, listing: Listing) -> dict[str, str] | None:
    """Names by place in the list: a number is a place, from 0; other labels have theirs in the data set's own order."""
    names = list(file.names)
    known = list(listing.own or (labels if listing.alphabetical else ()))
    if labels and all(_is_number(label) for label in (*labels, *known)):
        last = max(labels, key=int)
        if int(last) >= len(names):
            raise DatasetError(
                f"dataset.classes: {file.path} has {len(names)} names, and {listing.where} the {listing.noun} {last} "
                "(numbers count from 0)"
            )
        return {label: names[int(label)] for label in labels}
    if labels and len(known) == len(names) and set(labels) <= set(known):
        return {label: names[known.index(label)] for label in labels}
    return None


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal() and str(int(label)) == label


def _is_label(key: object) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool))
