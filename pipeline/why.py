"""Why tables lack rows, in words that a person understands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stages.stage import Table
from storage import files
from storage.shards import ShardTable


def why_missing(table: Table, store: str) -> str:
    """Why a table lacks rows, in words a person understands; empty when it lacks none."""
    if not table.missing:
        return ""
    if not isinstance(table.keeper, ShardTable):
        return "the tables it shows have changed" if table.keeper.bytes() else "not made yet"
    count = len(table.missing)
    if table.keeper.exists and table.keeper.rows():
        return f"{count:,} of {len(table.wanted):,} rows are new or were not reached"
    former = _former_table(table, store)
    if former is None:
        return "not made yet"
    changes = _changes(former, table.ingredients.as_dict())
    return f"{'; '.join(changes) or 'inputs changed'}: starts a new table"


def _former_table(table: Table, store: str) -> dict[str, Any] | None:
    """What the newest other table of this stage and name was made of."""
    newest, found = 0.0, None
    for place in files.list_folders(os.path.join(store, "tables", table.stage)):
        if os.path.basename(place) == table.fingerprint or not (other := ShardTable(place)).exists:
            continue
        description, modified = other.description(), other.modified() or 0.0
        if description["name"] == table.name and modified > newest:
            newest, found = modified, description
    return found


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    changes = []
    for name in dict.fromkeys([*old["settings"], *new["settings"]]):
        before, after = old["settings"].get(name), new["settings"].get(name)
        if before != after:
            changes.append(f"{name} {_show(before)} -> {_show(after)}")
    if old["version"] != new["version"]:
        changes.append("the stage's code changed")
    if old["weights"] != new["weights"]:
        changes.append("the model's weights changed")
    for kind in ("rows", "whole"):
        for name in dict.fromkeys([*old[kind], *new[kind]]):
            if old[kind].get(name) != new[kind].get(name):
                changes.append(f"{name} changed")
    return changes


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)
