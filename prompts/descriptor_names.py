"""Whose descriptors they are: classes find theirs by their exact names, or by those that an alias file gives them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .descriptor_file import read_keyed
from .descriptor_rows import kind_of
from .phrasing import clean_class_name

_ALIASES = "an alias file is {class of the data set: its name in the descriptor file}"


class Aliases(NamedTuple):
    """What classes are called in a descriptor file, and the file that says so."""

    path: str | Path
    names: Mapping[str, str]


class ClassDescriptors(NamedTuple):
    """The descriptors of the classes asked for, in their order, under their names; and what was left over."""

    descriptors: dict[str, list[str]]
    extra: list[str]


def read_aliases(path: str | Path) -> Aliases:
    """An alias file (.json, .yaml or .yml). Raises ValueError, naming the file, for one that holds something else."""
    said = read_keyed(path, _ALIASES)
    if not isinstance(said, dict):
        raise ValueError(f"{path}: found {kind_of(said)} at the top; {_ALIASES}")
    for name, other in said.items():
        for one in (name, other):
            if not isinstance(one, str) or not one.strip():
                raise ValueError(f"{path}: {name!r} leads to {other!r}; both are names, in quotes where they need it")
    return Aliases(path, said)


def descriptors_for(
    classes: Sequence[str],
    descriptors: Mapping[str, Sequence[str]],
    path: str | Path,
    aliases: Aliases | None = None,
) -> ClassDescriptors:
    """Pick each class's descriptors by its exact name, or its alias, where `_` and a space count as the same.

    `path` is where `descriptors` came from, for messages. Classes of the file that nobody asked for are
    returned in `extra`, so that the caller can say so.

    Raises ValueError naming the classes without descriptors, with similar names that the file does have; for names of
    the aliases that are no class, or that the file does not have; and for two names that differ only by `_` and space.
    """
    by_name = _by_clean_name(descriptors, path)
    meant = {} if aliases is None else _meant(aliases, classes, by_name, path)
    names = {name: meant.get(clean_class_name(name), clean_class_name(name)) for name in classes}
    missing = {name: wanted for name, wanted in names.items() if wanted not in by_name}
    if missing:
        raise ValueError(_missing_message(list(missing), by_name, path))
    found = {name: list(descriptors[by_name[wanted]]) for name, wanted in names.items()}
    asked_for = set(names.values())
    return ClassDescriptors(found, [name for clean, name in by_name.items() if clean not in asked_for])


def _by_clean_name(names: Iterable[str], path: str | Path) -> dict[str, str]:
    """The name as it is spoken -> as it is written. Raises ValueError for two that are spoken alike."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(clean_class_name(name), name)
        if other != name:
            raise ValueError(f"{path}: {other!r} and {name!r} are the same class; keep one of them")
    return found


def _meant(aliases: Aliases, classes: Sequence[str], by_name: Mapping[str, str], path: str | Path) -> dict[str, str]:
    """Class -> its name in the descriptor file, both as they are spoken."""
    own = {clean_class_name(name): name for name in classes}
    written = _by_clean_name(aliases.names, aliases.path)
    if unknown := [name for clean, name in written.items() if clean not in own]:
        raise ValueError(f"{aliases.path}: the data set has no class {_named(unknown, own)}; take it out or mend it")
    meant = {clean: aliases.names[name] for clean, name in written.items()}
    if unknown := [other for other in meant.values() if clean_class_name(other) not in by_name]:
        raise ValueError(f"{aliases.path}: {path} has no class {_named(unknown, by_name)}; take it out or mend it")
    return {clean: clean_class_name(other) for clean, other in meant.items()}


def _missing_message(missing: Sequence[str], by_name: Mapping[str, str], path: str | Path) -> str:
    return (
        f"{path}: no descriptors for {len(missing)} of the classes: {_named(missing, by_name)}; names must agree "
        "exactly, except that '_' stands for a space, or be given in an alias file (`aliases`)"
    )


def _named(names: Sequence[str], known: Mapping[str, str]) -> str:
    """The first of these names, each with those that are known and like it."""
    shown = []
    for name in names[:5]:
        similar = difflib.get_close_matches(clean_class_name(name), known, n=2)
        hint = f" (similar: {', '.join(repr(known[each]) for each in similar)})" if similar else ""
        shown.append(f"{name!r}{hint}")
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
