"""Settings by their dotted names: `views.random.crops`, `methods.dnd.epsilon`, `methods.*.max_crops`.

`--set` and the `sweep` of a job file change through these what the file says, before it is checked as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.methods import METHODS, PRESETS

EVERY = "*"


def set_key(data: dict[str, Any], name: str, value: Any) -> None:
    """Set one key in `data`, what a job file says; groups on the way there that the file lacks are made.

    In a list a step is a number, among methods also the row name of one (its label, else its name), or `*` for every
    method that has the setting. Raises ValueError for a place that does not exist.
    """
    steps = name.split(".")
    if not all(steps):
        raise ValueError(f"{name!r} is no key; keys look like views.random.crops")
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
    methods = data.get("methods")
    if not isinstance(methods, list) or not methods:
        raise ValueError(f"methods.{EVERY}: the job file lists no methods; write under `methods` which ones are meant")
    having = [place for place, method in enumerate(methods) if setting in _settings_of(method)]
    if not having:
        rows = ", ".join(row_names(methods))
        raise ValueError(f"methods.{EVERY}.{setting}: none of the methods has a setting {setting!r}; there are {rows}")
    for place in having:
        set_key(data, f"methods.{place}.{setting}", value)


def _settings_of(method: Any) -> Sequence[str]:
    name = method.get("name") if isinstance(method, Mapping) else method
    if not isinstance(name, str):
        return []
    name = PRESETS.get(name, {}).get("name", name)
    return list(METHODS[name].model_fields) if name in METHODS else []


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
