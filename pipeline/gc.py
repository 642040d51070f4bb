"""What of a store no job reads any more: tables, databases, listings, and what dead runs left; and its removal.

Reached is what the registered jobs read as they ran last, what the job files at hand read as they are now, and what a
living run holds. Looked at are `tables/`, `lance/`, `listings/` and temporaries alone: never what a language model
answered, run records or remembered hashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal

from pipeline.changes import changes
from pipeline.plan import Plan
from pipeline.record import is_run_id, sweep_dead_runs
from pipeline.registry import database, fingerprints, registered
from stages.datasets.kept import names_asked_for
from storage import files
from storage.leases import Claims, Held, claimed, living_runs
from storage.records import new_run_id
from storage.shards import ShardTable


@dataclass(frozen=True)
class Unreached:
    """Something that no job reads: where it lies (relative to the store), and of a table what it was."""

    kind: Literal["table", "database", "listing", "temporaries"]
    path: str
    bytes: int
    modified: str | None = None
    """when it was last written, in ISO 8601 and UTC"""
    stage: str | None = None
    table: str | None = None
    rows: int | None = None
    differs: str = ""
    """what the job's present table of that name has otherwise"""
    removed: bool = False


@dataclass(frozen=True)
class Garbage:
    """What no job of a store reads."""

    store: str
    unreached: tuple[Unreached, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: store, unreached, their bytes, and how many were removed."""
        return {
            "store": self.store,
            "unreached": [asdict(one) for one in self.unreached],
            "bytes": sum(one.bytes for one in self.unreached),
            "removed": sum(one.removed for one in self.unreached),
        }


def find_garbage(store: str, plans: Sequence[Plan]) -> Garbage:
    """What of a store is reached neither by a job that is registered in it, nor by these plans, nor held by a run."""
    reached = _Reached(store, plans)
    found = [*_tables(store, reached), *_databases(store, reached), *_listings(store, reached), *_temporaries(store)]
    return Garbage(store, tuple(found))


def remove_garbage(garbage: Garbage, plans: Sequence[Plan]) -> Garbage:
    """Remove what is still unreached and what no run holds; each then says whether it was removed."""
    store, run, done = garbage.store, new_run_id(), []
    with Claims(store, run, {"job": "gc"}) as claims:
        held = _hold(claims, [name for one in garbage.unreached if (name := _resource(one)) is not None])
        reached = _Reached(store, plans, own=held)  # a job may have come to read something since it was listed
        for one in garbage.unreached:
            name = _resource(one)
            if name is not None and (name not in held or name in reached):
                done.append(one)
                continue
            path = os.path.join(store, one.path)
            if name is not None:
                claims.check()
                files.remove_folder(path, run)
            elif one.kind == "listing":
                files.remove_file(path)
            done.append(replace(one, removed=True))
        sweep_dead_runs(store, run)
    return Garbage(store, tuple(done))


def _hold(claims: Claims, names: Iterable[str]) -> set[str]:
    """Those of these that could be taken: what a run holds is left to it."""
    wanted = set(names)
    while True:
        try:
            claims.take(wanted)
            return wanted
        except Held as held:
            wanted -= {name for holder in held.holders for name in holder["resources"]}


class _Reached:
    """`stage/fingerprint` of what jobs read or runs hold, names of listings, and the present table of each name.

    What `own` names is held by the asking run itself.
    """

    def __init__(self, store: str, plans: Sequence[Plan], own: Iterable[str] = ()):
        entries = sorted(registered(store), key=lambda entry: entry["registered"])
        tables = [entry["tables"] for entry in entries] + [fingerprints(plan) for plan in plans]
        databases = [entry["database"] for entry in entries] + [database(plan) for plan in plans]
        self.present = {name: value for each in tables for name, value in each.items()}
        by_jobs = {f"{name.partition('/')[0]}/{value}" for each in tables for name, value in each.items()}
        by_jobs |= {_of_database(path) for path in databases if path is not None}
        self._names = by_jobs | ({name.removesuffix("/rows") for name in claimed(store)} - set(own))
        self.listings = {name for entry in entries for name in entry["listings"]} | names_asked_for()

    def __contains__(self, name: str) -> bool:
        return name in self._names


def _resource(one: Unreached) -> str | None:
    """The name by which runs hold it; None where runs hold no such thing."""
    if one.kind == "database":
        return _of_database(one.path)
    return f"{one.stage}/{os.path.basename(one.path)}" if one.kind == "table" else None


def _of_database(path: str) -> str:
    """A database is called by the fingerprint of project's table."""
    return f"project/{os.path.basename(path)}"


def _tables(store: str, reached: _Reached) -> Iterator[Unreached]:
    for folder in files.list_folders(os.path.join(store, "tables")):
        stage = os.path.basename(folder)
        for place in files.list_folders(folder):
            if f"{stage}/{os.path.basename(place)}" in reached:
                continue
            table = ShardTable(place)
            told = table.description() if table.exists else {}
            name = told.get("name")
            yield Unreached(
                kind="table",
                path=files.relative(place, store),
                bytes=table.bytes(),
                modified=_moment(table.modified()),
                stage=stage,
                table=name,
                rows=table.rows(),
                differs=_differs(told, store, stage, reached) if told else "was never described",
            )


def _differs(told: dict[str, Any], store: str, stage: str, reached: _Reached) -> str:
    present = reached.present.get(f"{stage}/{told['name']}")
    if present is None:
        return "no job has a table of that name"
    newer = ShardTable(os.path.join(store, "tables", stage, present))
    return "; ".join(changes(told, newer.description())) if newer.exists else "its successor is not made yet"


def _databases(store: str, reached: _Reached) -> Iterator[Unreached]:
    for place in files.list_folders(os.path.join(store, "lance")):
        path = files.relative(place, store)
        if _of_database(path) not in reached:
            stamps = [stamp for _, stamp in files.list_stamped(place, ".json")]
            yield Unreached("database", path, files.folder_bytes(place), _moment(max(stamps, default=None)), "project")


def _listings(store: str, reached: _Reached) -> Iterator[Unreached]:
    for path, stamp in files.list_stamped(os.path.join(store, "listings"), ".arrow"):
        if os.path.basename(path).removesuffix(".arrow") not in reached.listings:
            yield Unreached("listing", files.relative(path, store), len(files.read_bytes(path)), _moment(stamp))


def _temporaries(store: str) -> Iterator[Unreached]:
    """One for each dead run: they are scattered over the store, and swept together."""
    living, dead = living_runs(store), []

    def is_alive(run: str) -> bool:
        if is_run_id(run) and run not in living:
            dead.append(run)
        return True  # nothing is swept yet

    files.sweep_temporaries(store, is_alive)
    for run in sorted(dead):
        yield Unreached("temporaries", f".tmp-{run}-*", 0)


def _moment(stamp: float | None) -> str | None:
    return None if stamp is None else datetime.fromtimestamp(stamp, timezone.utc).isoformat(timespec="seconds")
