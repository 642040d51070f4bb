"""The record of a run, kept in the store: settings, tables, versions, hardware, what each stage did, how it ended."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.plan import Plan
from pipeline.registry import Origin, database, fingerprints
from pipeline.settings import Job
from storage import files
from storage.leases import living_runs
from storage.records import write_record

LIBRARIES = (
    "ray",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "pyarrow",
    "polars",
    "lancedb",
    "numpy",
    "pillow",
)
RECORDS_LOOKED_AT = 50
"""Newest records among which a run looks for those of runs that were killed."""


class RunRecord:
    """The run's record in the store; written when the first stage begins, after each stage, and at the end."""

    def __init__(self, job: Job, run_id: str, started: float, origin: Origin):
        self.job, self.run_id, self.started, self.origin = job, run_id, started, origin
        self.begun = False
        self.cluster: dict[str, Any] = {}
        """what `Cluster.describe` says, once a stage has reached Ray"""

    def write(self, plan: Plan, results: Sequence[Any], ending: str) -> None:
        """Write or replace the record; `ending` is running, done, interrupted, terminated or failed with a reason.

        The next run that computes makes killed of a running one whose run is dead.
        """
        self.begun = True
        hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "memory": _memory()}
        cluster = dict(self.cluster)
        address = cluster.pop("address", None)
        record = {
            "job": self.job.name,
            "ending": ending,
            "started": datetime.fromtimestamp(self.started, timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 3),
            "host": platform.node(),
            "process": os.getpid(),
            "file": self.origin.file,
            "settings": self.job.model_dump(mode="json"),
            "weights": _weights(plan),
            "tables": fingerprints(plan),
            "database": database(plan),
            "stages": [asdict(result) for result in results],
            "rejects": plan.rejects,
            "versions": {"python": platform.python_version(), **versions_of_libraries()},
            "git": git_commit(Path(__file__).resolve().parents[1]),
            "hardware": hardware | cluster,
            "address": address,
        }
        write_record(self.job.store, self.run_id, record)


def _weights(plan: Plan) -> str | None:
    """Identity of the CLIP model's weights, where known."""
    tables = plan.of("encode_text").tables
    return tables[0].ingredients.weights if tables else None


@cache
def versions_of_libraries() -> Mapping[str, str]:
    """Versions of this program and of what decides its results, as they are installed."""
    found = {}
    for name in ("fieldmark", *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_commit(folder: Path) -> str | None:
    """The commit of a checkout, with `-dirty` where files were changed; None where the folder is not one."""
    told = _git(folder, "rev-parse", "--show-toplevel")
    if told is None or Path(told) != folder:  # installed somewhere inside another project's checkout
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _memory() -> int | None:
    """Bytes of this machine's memory, where the system says it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def sweep_dead_runs(store: str, run_id: str) -> None:
    """Remove temporary files of runs that hold no claim any more, and note in their records that they were killed.

    To be called by a run that holds a claim, whose stamp then is the clock by which others are told dead. Temporaries
    that carry no run's id (of tables being dropped, of caches) are swept where no other run is alive.
    """

    def is_alive(run: str) -> bool:  # asked after its temporary was seen, since a run may begin meanwhile
        living = living_runs(store) | {run_id}
        return run in living or not (is_run_id(run) or living == {run_id})

    files.sweep_temporaries(store, is_alive)
    runs = os.path.join(store, "runs")
    records = map(json.loads, files.read_each(files.list_files(runs, ".json")[-RECORDS_LOOKED_AT:]))
    running = {record["run"] for record in records if record["ending"] == "running"}
    for run in running - living_runs(store) - {run_id}:
        record = json.loads(files.read_bytes(os.path.join(runs, f"{run}.json")))
        if record["ending"] == "running":  # and has not come to its end since
            write_record(store, run, record | {"ending": "killed"})


def is_run_id(name: str) -> bool:
    """Whether a temporary's name is that of a run, which begins with a date, and not of what runs have in common."""
    return name[:8].isdecimal()
