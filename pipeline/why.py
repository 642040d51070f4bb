"""Why tables lack rows, in words that a person understands: what is new, what changed, what a stopped run left."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.changes import changes, differ_in_code_alone, name_some
from stages.encode_images import describe_table
from stages.stage import Table
from storage import files
from storage.leases import living_runs
from storage.records import read_records
from storage.shards import ShardTable

_OF_IMAGES = ("encode_images", "score", "test_time")
_NOUNS = {
    "encode_images": "image",
    "score": "image",
    "test_time": "image",
    "build_caches": "shot",
    "encode_text": "text",
    "describe": "class",
}


def why_missing(table: Table, store: str) -> str:
    """Why a table lacks rows, in words a person understands; empty when it lacks none."""
    return Why(store).words(table)


RECORDS_READ = 200
"""Runs of the store that are looked at, the newest: a store that runs every hour has thousands."""


class Why:
    """Says why tables of a store lack rows, at one time: what it reads and finds is remembered."""

    def __init__(self, store: str) -> None:
        self.store = store
        self._made: dict[str, list[tuple[ShardTable, dict[str, Any]]]] = {}
        self._modified: dict[str, float | None] = {}
        self._reasons: dict[tuple[str, str, str], list[str]] = {}
        self._images: tuple[pa.ChunkedArray | None, pa.ChunkedArray | None] = None, None

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The records of the store's newest runs, newest last."""
        return read_records(self.store, RECORDS_READ)

    def words(self, table: Table) -> str:
        """The reasons in one line, and what follows from them: "views.abs.crops 60 -> 30: encode_images starts ..."."""
        reasons = "; ".join(self.reasons(table))
        if not reasons or not self._starts_anew(table) or not self._others(table):
            return reasons
        missing = len(table.missing)
        return f"{reasons}: {table.stage} starts a new table; {count(missing, _NOUNS.get(table.stage, 'row'))}"

    def reasons(self, table: Table) -> list[str]:
        """Why a table lacks rows, a clause each; none when it lacks none."""
        known = table.stage, table.name, table.fingerprint
        if known not in self._reasons:
            self._reasons[known] = self._find_reasons(table)
        return self._reasons[known]

    def unread(self, table: Table) -> int:
        """How many images of a table of encode_images are not in the data set, or no longer: their rows stay there."""
        if table.stage != "encode_images" or len(stored := table.keeper.keys()) <= table.present:
            return 0
        gone = pc.unique(_ids(stored.filter(pc.invert(pc.is_in(stored, value_set=table.wanted)))))
        if self._images[0] is not table.wanted:  # which the tables of a plan share, a million of them maybe
            self._images = table.wanted, _ids(table.wanted)
        return len(gone) - _how_many(gone, self._images[1])

    def is_newer_code_alone(self, table: Table) -> bool:
        """Whether a table is made anew only because the code of its stage is newer than what made the one there was."""
        if not len(table.missing) or not isinstance(table.keeper, ShardTable) or not self._starts_anew(table):
            return False
        new = describe_table(table)
        return any(differ_in_code_alone(old, new) for _, old in self._others(table))

    def _find_reasons(self, table: Table) -> list[str]:
        if not len(table.missing):
            return []
        if not isinstance(table.keeper, ShardTable):
            return [self._why_not_shown(table)]
        if not self._starts_anew(table):
            return self._why_rows_lack(table)
        return self._differences(table) or ["not made yet"]

    def _starts_anew(self, table: Table) -> bool:
        return isinstance(table.keeper, ShardTable) and not len(table.keeper.keys())

    def _differences(self, table: Table) -> list[str]:
        """What tells it from the table of its stage and name that is nearest to it, of several the newest."""
        new = describe_table(table)
        newest_first = sorted(self._others(table), key=lambda other: other[0], reverse=True)
        told = [changes(old, new) or ["its inputs changed"] for _, old in newest_first]
        return min(told, key=len, default=[])

    def _others(self, table: Table) -> list[tuple[float, dict[str, Any]]]:
        """Every other table of this stage and name that has rows: when it was last written, and what describes it."""
        if table.stage not in self._made:
            there = map(ShardTable, files.list_folders(os.path.join(self.store, "tables", table.stage)))
            self._made[table.stage] = [(made, made.description()) for made in there if made.exists]
        found = []
        for made, description in self._made[table.stage]:
            if description["name"] != table.name or os.path.basename(made.folder) == table.fingerprint:
                continue
            if made.folder not in self._modified:
                self._modified[made.folder] = made.modified()
            if (modified := self._modified[made.folder]) is not None:
                found.append((modified, description))
        return found

    def _why_not_shown(self, table: Table) -> str:
        """Of a table that is no shards, but shows what shards hold: its keys are those of its parts."""
        if table.keeper.bytes():
            parts = [key.rsplit("@", 1)[0] for key in table.missing.to_pylist()]
            return f"{', '.join(parts)} changed since"
        made = files.list_folders(os.path.dirname(table.keeper.uri))
        return "shows tables that no database shows yet: starts a new one" if made else "not made yet"

    def _why_rows_lack(self, table: Table) -> list[str]:
        """What is new, what changed, and what the last run did not come to."""
        stored = table.keeper.keys()
        if table.stage == "describe":
            return _why_classes_lack(table.missing, stored)
        changed = _how_many(_ids(table.missing), _ids(stored)) if table.stage in _OF_IMAGES else 0
        noun, new = _NOUNS.get(table.stage, "row"), len(table.missing) - changed
        reasons = []
        if new and (cut_short := self._why_not_reached(table)):
            reasons.append(f"{new:,} of {count(len(table.wanted), noun)} {cut_short}")
        elif new:
            reasons.append(count(new, f"new {noun}"))
        return reasons + ([count(changed, f"changed {noun}")] if changed else [])

    def _why_not_reached(self, table: Table) -> str:
        """What became of the rows that the last run on this table had still to compute; empty where it came to its end.

        A run that ended well without this stage says nothing of it: it was not among those chosen.
        """
        for record in reversed(self.records):
            if table.fingerprint not in record["tables"].values():
                continue
            if any(stage["stage"] == table.stage for stage in record["stages"]):
                return ""
            if record["ending"] == "running" and record["run"] in living_runs(self.store):
                return "are still to come in the run that is going on"
            if record["ending"] != "done":
                break
        return "were not reached by the last run"


def count(number: int, noun: str) -> str:
    """A number of things: "1 image", "1,204 images", "2 new classes"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def _why_classes_lack(missing: pa.ChunkedArray, stored: pa.ChunkedArray) -> list[str]:
    """Which classes are new, and of which ones the descriptors changed: keys are those of `describe`."""
    known, names = set(_ids(stored).to_pylist()), _ids(missing).to_pylist()
    new, changed = [name for name in names if name not in known], [name for name in names if name in known]
    reasons = [f"{count(len(new), 'new class')}: {name_some(new)}"] if new else []
    return reasons + ([f"descriptors of {count(len(changed), 'class')} changed: {name_some(changed)}"] * bool(changed))


def _ids(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """What keys `id@version` are of: a version has no @, an id may."""
    return pc.replace_substring_regex(keys, "@[^@]*$", "")


def _how_many(some: pa.ChunkedArray, of: pa.ChunkedArray) -> int:
    """How many of some texts are among others."""
    return pc.sum(pc.is_in(some, value_set=of)).as_py() or 0
