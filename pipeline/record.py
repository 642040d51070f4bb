"""The record of a run, kept in the store: settings, tables, versions, seconds and rows a stage, rejects."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.plan import Plan, make_plan
from pipeline.settings import Job
from storage import files
from storage.records import read_records, write_record

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


class RunRecord:
    """The run's record in the store; written when the first stage begins, and again at the end."""

    def __init__(self, job: Job, run_id: str, started: float):
        self.job, self.run_id, self.started, self.begun = job, run_id, started, False

    def outdated(self) -> bool:
        """Whether the newest record of this job speaks of other tables: going back to old settings computes nothing."""
        former = [record for record in read_records(self.job.store) if record["job"] == self.job.name]
        return not former or former[-1]["tables"] != fingerprints(make_plan(self.job))

    def write(self, results: Sequence[Any], ending: str) -> None:
        """Write or replace the record; `ending` is running, done, interrupted or failed with a reason."""
        self.begun = True
        plan = make_plan(self.job)
        record = {
            "job": self.job.name,
            "ending": ending,
            "started": datetime.fromtimestamp(self.started, timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 3),
            "host": platform.node(),
            "process": os.getpid(),
            "settings": self.job.model_dump(mode="json"),
            "weights": _weights(plan),
            "tables": fingerprints(plan),
            "database": _database(plan),
            "stages": [asdict(result) for result in results],
            "rejects": plan.rejects,
            "versions": {"python": platform.python_version(), **versions_of_libraries()},
            "git": _git_commit(),
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        }
        write_record(self.job.store, self.run_id, record)


def _database(plan: Plan) -> str | None:
    """Where the complete projection lies, relative to the store, which may be moved."""
    projected = plan.of("project")
    if not projected.tables or not projected.done:
        return None
    return files.relative(projected.tables[0].keeper.uri, plan.inputs.store)


def _weights(plan: Plan) -> str | None:
    """Identity of the CLIP model's weights, where known."""
    tables = plan.of("encode_text").tables
    return tables[0].ingredients.weights if tables else None


def fingerprints(plan: Plan) -> dict[str, str]:
    """`stage/table` -> fingerprint, of all tables that are known."""
    return {f"{table.stage}/{table.name}": table.fingerprint for stage in plan.stages for table in stage.tables}


def versions_of_libraries() -> dict[str, str]:
    found = {}
    for name in ("fieldmark", *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def sweep_dead_runs(store: str, run_id: str) -> None:
    """Remove temporary files of runs whose process is gone."""
    alive = {record["run"] for record in read_records(store) if _is_alive(record)} | {run_id}
    files.sweep_temporaries(store, lambda run: run in alive)


def _is_alive(record: dict[str, Any]) -> bool:
    if record["ending"] != "running" or record["host"] != platform.node():
        return record["ending"] == "running"
    try:
        os.kill(record["process"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
