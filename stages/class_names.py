"""Class names: read from a file, and found for the labels of the images.

A class has an id, which tables and predictions hold, and a name, which prompts speak. They are the same word for word,
but for `_`, unless two classes are called alike: then the ids also say which is which, by the data set's own label
("crane (n02012849)") or by the place in a list, from 0 ("crane (134)").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from prompts.descriptor_file import UniqueKeyLoader
from prompts.phrasing import clean_class_name
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
    """label -> id of its class; in a plain list, every id is its own label"""
    is_list: bool
    classes: dict[str, str]
    """id -> name, in order"""

    @cached_property
    def alike(self) -> dict[str, list[str]]:
        """Labels by how they are spoken: `_` counts as a space, and in a list the place in brackets is not spoken."""
        found: dict[str, list[str]] = {}
        for label in self.names:
            spoken = self.classes[label] if self.is_list else clean_class_name(label)
            found.setdefault(spoken, []).append(label)
        return found


def read_class_names(path: str, key: str = "dataset.classes") -> ClassFile:
    """A file of class names: one a line, or a list or mapping in JSON or YAML; `key` says who names it in messages.

    Raises DatasetError.
    """
    file = Path(path)
    if not file.is_file():
        raise DatasetError(f"{key}: no file {path}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{key}: {path} is not UTF-8 text") from None
    if file.suffix.lower() in {".yaml", ".yml", ".json"}:
        try:
            value = yaml.load(text, Loader=UniqueKeyLoader)
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise DatasetError(f"{key}: {path} is not valid YAML or JSON: {problem}") from None
    else:
        value = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        _check_spoken({f"number {place} (from 0)": name for place, name in enumerate(value)}, f"{key}: {path} names")
        ids = _ids({str(place): name for place, name in enumerate(value)}, key)
        classes = {identity: clean_class_name(name) for identity, name in zip(ids.values(), value, strict=True)}
        return ClassFile(path, {identity: identity for identity in classes}, is_list=True, classes=classes)
    if isinstance(value, dict) and value and all(_is_label(k) and isinstance(v, str) for k, v in value.items()):
        names = {str(label): name for label, name in value.items()}
        _check_spoken({repr(label): name for label, name in names.items()}, f"{key}: {path} names")
        return ClassFile(path, names, is_list=False, classes={name: clean_class_name(name) for name in names.values()})
    raise DatasetError(
        f"{key}: {path} should hold class names, one a line, or a mapping of folder names to class names"
    )


def _check_spoken(names: Mapping[str, str], start: str) -> None:
    """DatasetError, which begins with `start`, for a name that is blank as it is spoken; keys say whose it is."""
    for whose, name in names.items():
        if not clean_class_name(name).strip():
            raise DatasetError(
                f"{start} {whose} {name!r}, which is blank where `_` is a space; give it a name in words"
            )


def _ids(names: Mapping[str, str], key: str = "dataset.classes") -> dict[str, str]:
    """Label -> id of its class: the name, and where several are spoken alike also the label, in brackets."""
    shared = Counter(map(clean_class_name, names.values()))
    ids = {label: name if shared[clean_class_name(name)] == 1 else f"{name} ({label})" for label, name in names.items()}
    twice = [identity for identity, count in Counter(ids.values()).items() if count > 1]
    if twice:
        raise DatasetError(f"{key}: two classes would both be told apart as {twice[0]!r}; rename one of them")
    return ids


def name_labels(
    labels: Sequence[str], file: ClassFile | None, listing: Listing
) -> tuple[dict[str, str], dict[str, str]]:
    """Label -> id of its class for every label; and id -> name of all classes in order. Raises DatasetError.

    A mapping that gives two labels one name makes them one class. A list, or a data set, that names two classes alike
    keeps them apart: ImageNet's two cranes are two classes, which no prompt can tell from one another.

    With a file a label is found by its exact name, else by one that differs in `_` and space alone, else so by the
    class name that the data set itself gives it. A plain list that does not name every label stands in the order of
    the labels, numbers or the data set's own, if those that it does name stand at their places. Without a file the data
    set's own names count, else the labels themselves, but for numbers and WordNet ids, which are no names.
    """
    if file is None:
        return _own_names(labels, listing)
    found = {label: _found(label, file, listing) for label in labels}
    if file.is_list and not all(len(names) == 1 for names in found.values()):
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


def _own_names(labels: Sequence[str], listing: Listing) -> tuple[dict[str, str], dict[str, str]]:
    if listing.own is not None:
        unknown = [label for label in labels if label not in listing.own]
        if unknown:
            raise DatasetError(
                f"dataset: {listing.where} has images labelled {', '.join(map(repr, unknown[:5]))}"
                f"{' and others' if len(unknown) > 5 else ''}, and its own list of classes does not name them"
            )
        own = {f"the {listing.noun} {label!r}": name for label, name in listing.own.items()}
        _check_spoken(own, f"dataset: {listing.where} names")
        ids = _ids(listing.own)
        return ids, {identity: clean_class_name(listing.own[label]) for label, identity in ids.items()}
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
    of_themselves = {f"the {listing.noun} {label!r}": label for label in labels}
    _check_spoken(of_themselves, f"dataset.classes: {listing.where} names")
    return {label: label for label in labels}, {label: clean_class_name(label) for label in labels}


def _found(label: str, file: ClassFile, listing: Listing) -> list[str]:
    """The labels of the file that a label of the data set may be."""
    spoken = listing.own.get(label, label) if listing.own is not None else label
    for name in (label, spoken):
        if name in file.names:
            return [name]
        if alike := file.alike.get(clean_class_name(name)):
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
