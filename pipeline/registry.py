"""Which jobs use a store: a file a job and variant under `<store>/jobs/`, so that `gc` knows what is still reached."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pipeline.plan import Plan
from pipeline.settings import Job
from stages.datasets.kept import names_asked_for
from storage import files
from storage.fingerprint import digest


@dataclass(frozen=True)
class Origin:
    """Where a job comes from; both are None for one that a Python program made."""

    file: str | None = None
    """absolute path of its job file"""
    variant: str | None = None
    """its label, where the file has a sweep; the end of the job's name"""


class Registry:
    """The entry of one job in its store: job, variant, file, settings, tables, listings, database, registered, run."""

    def __init__(self, job: Job, origin: Origin):
        self.job, self.origin = job, replace(origin, file=_lasting(origin.file))
        self.name = job.name.removesuffix(f" {origin.variant}") if origin.variant else job.name
        self.namesake: str | None = None
        """another job file, still there, that registered a job of this name before; known after the first question"""

    def outdated(self, plan: Plan) -> bool:
        """Whether the store does not know yet that the job reads these tables."""
        _, former = self._place()
        return former is None or any(former.get(key) != value for key, value in self._said(plan, former).items())

    def register(self, plan: Plan, run: str) -> None:
        """Note which tables the job reads. Of stages that are not known yet, those it read before still count."""
        path, former = self._place()
        entry = self._said(plan, former or {})
        entry |= {"listings": sorted(names_asked_for()), "settings": self.job.model_dump(mode="json")}
        entry |= {"registered": datetime.now(timezone.utc).isoformat(timespec="seconds"), "run": run}
        files.write_atomic(path, json.dumps(entry, indent=1).encode(), run)

    def warning(self) -> str | None:
        """What to say where two job files give their jobs one name."""
        if self.namesake is None:
            return None
        return f"job {self.name} of {self.namesake} is registered here too; give one of them another name"

    def _place(self) -> tuple[str, dict[str, Any] | None]:
        """Where the entry lies, and what it says now: another run of the job may have written it."""
        path = _path(self.job.store, self.name, self.origin.variant)
        former = _read(path)
        if self._is_anothers(former):
            self.namesake = former["file"]
            path = _path(self.job.store, self.name, self.origin.variant, self.origin.file)
            former = _read(path)
        return path, former

    def _said(self, plan: Plan, former: Mapping[str, Any]) -> dict[str, Any]:
        known = {stage.stage.name for stage in plan.stages if not stage.unknown}
        kept = {name: one for name, one in former.get("tables", {}).items() if name.partition("/")[0] not in known}
        return {
            "job": self.name,
            "variant": self.origin.variant,
            "file": self.origin.file or former.get("file"),
            "host": platform.node() if self.origin.file else former.get("host"),
            "tables": kept | fingerprints(plan),
            "database": database(plan) or former.get("database"),
        }

    def _is_anothers(self, entry: Mapping[str, Any] | None) -> bool:
        """Whether an entry is that of another job file which is still there: its tables must stay reached."""
        if entry is None or self.origin.file is None or entry["file"] in (None, self.origin.file):
            return False
        return entry.get("host") not in (None, platform.node()) or os.path.exists(entry["file"])


def _lasting(file: str | None) -> str | None:
    """A job file by what stays the same of its path: a Ray job runs in a copy of its folder, another at each change."""
    return None if file is None else re.sub(r"^.*/_ray_pkg_[^/]+/", "", file)


def registered(store: str) -> list[dict[str, Any]]:
    """The entries of all jobs of a store."""
    paths = files.list_files(os.path.join(store, "jobs"), ".json")
    return [entry for path in paths if (entry := _read(path)) is not None]


def forget(store: str, name: str) -> int:
    """Unregister a job with all of its variants; returns how many entries that were."""
    gone = 0
    for path in files.list_files(os.path.join(store, "jobs"), ".json"):
        if (entry := _read(path)) is not None and entry["job"] == name:
            files.remove_file(path)
            gone += 1
    return gone


def fingerprints(plan: Plan) -> dict[str, str]:
    """`stage/table` -> fingerprint, of all tables that are known."""
    return {f"{table.stage}/{table.name}": table.fingerprint for stage in plan.stages for table in stage.tables}


def database(plan: Plan) -> str | None:
    """Where the complete projection lies, relative to the store, which may be moved; None before it is complete."""
    projected = plan.of("project")
    if not projected.tables or not projected.done:
        return None
    return files.relative(projected.tables[0].keeper.uri, plan.inputs.store)


def _path(store: str, *names: str | None) -> str:
    return os.path.join(store, "jobs", f"{digest(list(names))}.json")


def _read(path: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(files.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is no registered job ({error}): move it out of this folder") from error
    return entry
