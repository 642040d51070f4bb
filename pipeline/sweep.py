"""A sweep: one job file that stands for several variants of a job, which share every table that they can.

`sweep: {views.guided.crops: [5, 20, 60]}` is a variant a value; several keys give all their combinations.
`sweep: [{label: small, set: {views.guided.max_side: 0.4}}, {label: paper}]` names its variants.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.dotted_keys import lies_inside, places_of, set_key

SHARED = ("name", "store", "sweep")
"""Keys that are the same in all variants: they lie in one store and are told apart by their labels."""


@dataclass(frozen=True)
class Expansion:
    """One variant: its label, what the job file would say for it, and the keys that make it differ."""

    label: str
    data: dict[str, Any]
    changes: Mapping[str, Any]
    """every key that is set, with its value"""
    values: Mapping[str, Any] = field(default_factory=dict)
    """the swept keys with this variant's values, for the axes of a plot; none where variants have names"""

    @property
    def told(self) -> str:
        """The variant as a message names it: by its keys and values, or by its name."""
        if not self.values:
            return repr(self.label)
        return ", ".join(f"{key} = {_shown(value)}" for key, value in self.values.items())


def expand_sweep(data: Mapping[str, Any]) -> list[Expansion]:
    """The variants of a job file that has a `sweep`, in its order, the last key changing fastest.

    Raises ValueError that begins with `sweep:` and names key and value: for another shape, a key that variants share,
    a key inside another one, two keys for one place, and for two variants of one label.
    """
    sweep = data["sweep"]
    base = {key: value for key, value in data.items() if key != "sweep"}
    if isinstance(sweep, Mapping) and sweep:
        expansions = _combinations(base, sweep)
    elif isinstance(sweep, list) and sweep:
        expansions = [_named(base, number, entry) for number, entry in enumerate(sweep)]
    else:
        raise ValueError(
            f"sweep: {sweep!r} should be {{views.random.crops: [3, 9]}}, keys with lists of values, or a list of "
            "{label: NAME, set: {KEY: VALUE}}"
        )
    labels = [each.label for each in expansions]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"sweep: two variants are called {label!r}; each value stands there once, each has a name")
    return expansions


def _combinations(base: Mapping[str, Any], sweep: Mapping[str, Any]) -> list[Expansion]:
    for key, values in sweep.items():
        _check_key(key)
        if not isinstance(values, list) or not values:
            raise ValueError(f"sweep: {key}: {values!r} should be a list of values, such as [3, 9]")
    _check_apart(base, list(sweep))
    names = _short_names(list(sweep))
    found = []
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        label = ", ".join(f"{names[key]}={_shown(value)}" for key, value in chosen.items())
        found.append(Expansion(label, _changed(base, chosen), chosen, chosen))
    return found


def _named(base: Mapping[str, Any], number: int, entry: Any) -> Expansion:
    shape = "a variant is {label: NAME, set: {KEY: VALUE}}"
    if not isinstance(entry, Mapping) or set(entry) - {"label", "set"}:
        raise ValueError(f"sweep: {number}: {entry!r}; {shape}")
    label, changes = entry.get("label"), entry.get("set", {})
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"sweep: {number}: label: {label!r} should be a name; {shape}")
    if not isinstance(changes, Mapping):
        raise ValueError(f"sweep: {label}: set: {changes!r} should hold keys and values; {shape}")
    for key in changes:
        _check_key(key)
    _check_apart(base, list(changes))
    return Expansion(label, _changed(base, changes), changes)


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not all(key.split(".")):
        raise ValueError(f"sweep: {key!r} is no key; keys look like views.random.crops")
    if key.split(".")[0] in SHARED:
        raise ValueError(
            f"sweep: {key}: is the same in all variants, which lie in one store and are told apart by their labels"
        )


def _check_apart(base: Mapping[str, Any], keys: Sequence[str]) -> None:
    """No key sets what another one sets, however it is written: `methods.*.epsilon` is `methods.dnd.epsilon` too."""
    places = {key: places_of(base, key) for key in keys}
    for outer, inner in itertools.permutations(keys, 2):
        for within, place in itertools.product(places[inner], places[outer]):
            if within == place:
                raise ValueError(f"sweep: {inner}: sets {place}, and so does {outer}; keep one of them")
            if lies_inside(within, place):
                raise ValueError(f"sweep: {inner}: lies inside {outer}, which is set as a whole; keep one of them")


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(dict(base))
    for key, value in changes.items():
        try:
            set_key(data, key, copy.deepcopy(value))
        except ValueError as error:
            raise ValueError(f"sweep: {key} = {_shown(value)}: {error}") from None
    return data


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ends of the keys that tell them apart: `crops`, or `random.crops` and `guided.crops`."""

    def ends(length: int) -> list[str]:
        return [".".join(key.split(".")[-length:]) for key in keys]

    length = next(n for n in itertools.count(1) if len(set(ends(n))) == len(keys))
    return dict(zip(keys, ends(length), strict=True))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
