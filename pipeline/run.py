"""Run a job: plan, compute what is missing stage by stage, plan again, and keep a record of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from pipeline.cluster import Cluster
from pipeline.job_file import JobError
from pipeline.plan import Plan, StagePlan, make_plan, stages_of
from pipeline.settings import Job
from stages.encode_images import guides_in_use
from stages.settings import DinoGuide
from stages.stage import Run, TooManyRejects, check_rejects, weights_cache
from stages.weights import is_resolved, resolve_model
from storage.files import sweep_temporaries
from storage.records import new_run_id, read_records, write_record

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


class Watcher(Protocol):
    """Sees a run go by: a progress bar, log lines, or nothing."""

    def stage_started(self, stage: str, units: int | None) -> None: ...
    def advanced(self, stage: str, done: int, rejected: int) -> None: ...
    def stage_ended(self, stage: str, result: StageResult) -> None: ...
    def closed(self) -> None: ...


@dataclass(frozen=True)
class StageResult:
    """What a stage did in a run. `computed` and `reused` count rows, summed over the stage's tables."""

    stage: str
    computed: int
    reused: int
    rejected: int
    seconds: float


@dataclass(frozen=True)
class Selection:
    """Which stages a run may compute: one, those from one on, those up to one; and whose rows it drops first."""

    only: str | None = None
    start: str | None = None
    until: str | None = None
    force: str | None = None

    def names(self, order: Sequence[str]) -> list[str]:
        """The chosen stages in their order. Raises ValueError for a stage that is not one."""
        for name in (self.only, self.start, self.until, self.force):
            if name is not None and name not in order:
                raise ValueError(f"no stage is called {name!r}; there are {', '.join(order)}")
        if self.only is not None:
            return [self.only]
        first = order.index(self.start) if self.start else 0
        last = order.index(self.until) if self.until else len(order) - 1
        if first > last:
            raise ValueError(f"--from {self.start} comes after --until {self.until}; the order is {', '.join(order)}")
        return list(order[first : last + 1])

    def check(self, order: Sequence[str]) -> None:
        """Raise ValueError for a stage that is not one, or a forced stage that would not be computed again."""
        chosen = self.names(order)
        if self.force is not None and self.force not in chosen:
            raise ValueError(f"--force {self.force}: that stage is not among those to run ({', '.join(chosen)})")


def run_job(job: Job, watcher: Watcher, cluster: Cluster, selection: Selection = Selection()) -> list[StageResult]:
    """Compute what is missing. Returns a result a stage, in order. Raises what a stage raises, after noting it."""
    run_id = new_run_id()
    order = [stage.name for stage in stages_of(job)]
    selection.check(order)
    chosen = selection.names(order)
    started, results, ending = time.time(), [], "interrupted"
    _resolve_weights(job, run_id)
    plan = make_plan(job)
    if selection.force is not None:
        _forget(plan.of(selection.force))
        plan = make_plan(job)
    _check_guides(job, plan)
    record = _Record(job, run_id, started)
    try:
        for name in chosen:
            result, plan = _run_stage(job, name, plan, watcher, cluster, run_id, record)
            results.append(result)
        ending = "done"
    except Exception as error:
        ending = f"failed: {error}"
        raise
    finally:
        watcher.closed()
        cluster.stop()
        if record.begun or record.outdated():
            record.write(results, ending)
    return results


def _resolve_weights(job: Job, run_id: str) -> None:
    """Before anything is planned, find out which weights a public name stands for. Raises JobError for a wrong one."""
    cache = weights_cache(Path(job.store))
    if is_resolved(job.model, cache):
        return
    from stages.vision.towers import ModelError, check_weights

    try:
        check_weights(job.model.name, job.model.weights)
    except ModelError as error:
        raise JobError(f"model.weights: {error}") from None
    resolve_model(job.model, cache, run_id)


def _check_guides(job: Job, plan: Plan) -> None:
    """Before anything starts, that the guides about to be loaded exist. Raises JobError."""
    lacking = [table.plan for table in plan.of("encode_images").tables if table.missing and table.plan is not None]
    for name, guide in guides_in_use(lacking, job.guides).items():
        if isinstance(guide, DinoGuide):
            from stages.vision.dino import check_guide_name

            try:
                check_guide_name(guide.name)
            except ValueError as error:
                raise JobError(f"guides.{name}.name: {error}") from None


def _run_stage(
    job: Job, name: str, plan: Plan, watcher: Watcher, cluster: Cluster, run_id: str, record: _Record
) -> tuple[StageResult, Plan]:
    before = plan.of(name)
    if before.unknown:
        raise RuntimeError(f"{name} cannot run yet: what it has to do is {before.unknown}. Run that stage first.")
    if all(table.complete for table in before.tables):
        _check_standing_rejects(job, before)
        result = StageResult(name, 0, sum(t.present for t in before.tables), _rejected(before), 0.0)
        watcher.stage_ended(name, result)
        return result, plan
    _check_inputs(plan, before)
    if not record.begun:
        _sweep(job.store, run_id)
        record.write([], "running")
    start = time.perf_counter()
    lacking = [table for table in before.tables if table.missing]
    watcher.stage_started(name, before.stage.units(lacking))
    run = Run(
        id=run_id,
        advance=lambda done, rejected: watcher.advanced(name, done, rejected),
        cluster=cluster.ray,
        max_rejects=job.max_rejects,
    )
    before.stage.compute(lacking, plan.inputs, run)
    plan = make_plan(job)
    after = plan.of(name)
    present_before = sum(table.present for table in before.tables)
    computed = sum(table.present for table in after.tables) - present_before
    result = StageResult(name, computed, present_before, _rejected(after), time.perf_counter() - start)
    watcher.stage_ended(name, result)
    return result, plan


def _check_inputs(plan: Plan, stage: StagePlan) -> None:
    """A stage reads complete tables only. Raises RuntimeError where --only or --from left one out."""
    for name in stage.stage.reads:
        lacking = [table for table in plan.of(name).tables if table.missing]
        if lacking:
            raise RuntimeError(
                f"{stage.stage.name} reads {name}, where {lacking[0].name} lacks {len(lacking[0].missing):,} rows: "
                f"run {name} first"
            )


def _rejected(plan: StagePlan) -> int:
    """Images rejected in any of the stage's tables, each once."""
    return len(set().union(*(table.rejected for table in plan.tables)))


def _check_standing_rejects(job: Job, plan: StagePlan) -> None:
    if rejected := _rejected(plan):
        check_rejects(plan.stage.name, rejected, len(plan.tables[0].wanted), job.max_rejects)


def _forget(plan: StagePlan) -> None:
    for table in plan.tables:
        table.keeper.clear()


def _sweep(store: str, run_id: str) -> None:
    """Remove temporary files of runs whose process is gone."""
    alive = {record["run"] for record in read_records(store) if _is_alive(record)} | {run_id}
    sweep_temporaries(store, lambda run: run in alive)


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


class _Record:
    """The run's record in the store; written when the first stage begins, and again at the end."""

    def __init__(self, job: Job, run_id: str, started: float):
        self.job, self.run_id, self.started, self.begun = job, run_id, started, False

    def outdated(self) -> bool:
        """Whether the newest record of this job speaks of other tables: going back to old settings computes nothing."""
        former = [record for record in read_records(self.job.store) if record["job"] == self.job.name]
        return not former or former[-1]["tables"] != _fingerprints(make_plan(self.job))

    def write(self, results: Sequence[StageResult], ending: str) -> None:
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
            "tables": _fingerprints(plan),
            "database": _database(plan),
            "stages": [asdict(result) for result in results],
            "rejects": plan.rejects,
            "versions": {"python": platform.python_version(), **_versions()},
            "git": _git_commit(),
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        }
        write_record(self.job.store, self.run_id, record)


def _database(plan: Plan) -> str | None:
    """Where the complete projection lies, relative to the store, which may be moved."""
    projected = plan.of("project")
    if not projected.tables or not projected.done:
        return None
    return Path(projected.tables[0].keeper.uri).relative_to(plan.inputs.store).as_posix()


def _weights(plan: Plan) -> str | None:
    """Identity of the CLIP model's weights, where known."""
    tables = plan.of("encode_text").tables
    return tables[0].ingredients.weights if tables else None


def _fingerprints(plan: Plan) -> dict[str, str]:
    return {f"{table.stage}/{table.name}": table.fingerprint for stage in plan.stages for table in stage.tables}


def _versions() -> dict[str, str]:
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


def explain_failure(error: BaseException) -> str:
    """One line for a person: what failed in a worker, without Ray's wrapping."""
    if isinstance(error, TooManyRejects):
        return str(error)
    cause = getattr(error, "cause", None)
    if cause is not None and "ray" in sys.modules:
        return f"{type(cause).__name__}: {cause}"
    return f"{type(error).__name__}: {error}"
