"""Settings by their dotted names: `views.random.crops`, `methods.dnd.epsilon`, `methods.*.max_crops`.

`--set` and the `sweep` of a job file change through these what the file says, before it is checked as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from stages.methods import METHODS, PRESETS, Method, parse_method
from stages.methods.bases import CropMethod

EVERY = "*"
OF_CROPS = frozenset(CropMethod.model_fields) - frozenset(Method.model_fields)
"""Settings that say which crops are read: nothing to a method whose other settings have it read none."""


def set_key(data: dict[str, Any], name: str, value: Any) -> None:
    """Set one key in `data`, what a job file says; groups on the way there that the file lacks are made.

    In a list a step is a number, among methods also the row name of one (its label, else its name), or `*` for every
    method that has the setting and reads it. Raises ValueError for a place that does not exist.
    """
    steps = name.split(".")
    if not all(steps):
        raise ValueError(f"{name!r} is no key; keys look like views.random.crops")
    if steps[0] == "methods" and len(steps) > 1 and not _listed(data):
        raise ValueError(
            f"methods.{steps[1]}: the job file lists no methods; write under `methods` which ones there are"
        )
    if steps[:2] == ["methods", EVERY]:
        _set_in_every_method(data, ".".join(steps[2:]), value)
        return
    place: Any = data
    for number, step in enumerate(steps):
        key: Any = step
        last = number == len(steps) - 1
        if isinstance(place, list):
            key = _place_in_list(place, step, of_methods=steps[:number] == ["methods"])
            if not last and isinstance(place[key], str):
                place[key] = {"name": place[key]}  # a method that was written as a bare name
        elif not isinstance(place, dict):
            raise ValueError(f"the key before {step!r} is a value, not a group of settings")
        if last:
            place[key] = value
        elif isinstance(place, list):
            place = place[key]
        else:
            place = place.setdefault(key, {})


def _set_in_every_method(data: dict[str, Any], setting: str, value: Any) -> None:
    having = _having(data["methods"], setting)
    if not having:
        rows = ", ".join(row_names(data["methods"]))
        raise ValueError(
            f"methods.{EVERY}.{setting}: none of the methods has a setting {setting!r} that it reads; there are {rows}"
        )
    for place in having:
        set_key(data, f"methods.{place}.{setting}", copy.deepcopy(value))


def places_of(data: Mapping[str, Any], name: str) -> list[str]:
    """The places in `data` that a key stands for: methods by their numbers, each of those that `*` means.

    A key that leads nowhere is its own place: `set_key` says what is wrong with it.
    """
    group, _, rest = name.partition(".")
    row, *setting = rest.split(".")
    methods = _listed(data)
    if group != "methods" or not rest or not methods:
        return [name]
    if row == EVERY:
        numbers = _having(methods, ".".join(setting))
    else:
        try:
            numbers = [_place_in_list(methods, row, of_methods=True)]
        except ValueError:
            numbers = []
    return [".".join([group, str(number), *setting]) for number in numbers] or [name]


def lies_inside(place: str, outer: str) -> bool:
    """Whether one place is another one, or a part of it."""
    return place == outer or place.startswith(outer + ".")


def _listed(data: Mapping[str, Any]) -> Sequence[Any]:
    """The methods that a job file lists, if any."""
    methods = data.get("methods")
    return methods if isinstance(methods, list) else []


def _having(methods: Sequence[Any], setting: str) -> list[int]:
    """The places of the methods that have a setting and read it."""
    return [place for place, method in enumerate(methods) if setting in _settings_of(method)]


def _settings_of(method: Any) -> Sequence[str]:
    name = method.get("name") if isinstance(method, Mapping) else method
    if not isinstance(name, str):
        return []
    name = PRESETS.get(name, {}).get("name", name)
    if name not in METHODS:
        return []
    try:
        unread = frozenset() if parse_method(method).needs_views else OF_CROPS
    except ValueError:
        unread = frozenset()  # what is wrong with it is told when the file is checked
    return [setting for setting in METHODS[name].model_fields if setting not in unread]


def _place_in_list(items: Sequence[Any], step: str, *, of_methods: bool) -> int:
    if step.isdecimal() and int(step) < len(items):
        return int(step)
    rows = row_names(items) if of_methods else []
    if step in rows:
        return rows.index(step)
    named = f"; methods are {', '.join(rows)}" if rows else ""
    raise ValueError(f"{step!r} is no place in a list of {len(items)}{named}")


def row_names(methods: Sequence[Any]) -> list[str]:
    """The methods' names in tables, told from what a job file says of them."""
    return [str(m.get("label") or m.get("name")) if isinstance(m, Mapping) else str(m) for m in methods]
