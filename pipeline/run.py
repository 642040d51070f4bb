"""Run a job: plan, compute what is missing stage by stage, plan again, and keep a record of it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.cluster import Cluster
from pipeline.job_error import JobError
from pipeline.plan import Plan, StagePlan, make_plan, stages_of
from pipeline.record import RunRecord, sweep_dead_runs
from pipeline.settings import Job
from stages.encode_images import guides_in_use
from stages.settings import DinoGuide
from stages.stage import Run, TooManyRejects, check_rejects, weights_cache
from stages.weights import is_resolved, resolve_weights
from storage.records import new_run_id


class Watcher(Protocol):
    """Sees a run go by: a progress bar, log lines, or nothing."""

    def stage_started(self, stage: str, units: int | None) -> None: ...
    def advanced(self, stage: str, done: int, rejected: int) -> None: ...
    def noted(self, stage: str, text: str) -> None: ...
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
    phases: dict[str, float] = field(default_factory=dict)
    """seconds by phase, summed over workers, of a stage that measures them"""


@dataclass(frozen=True)
class Selection:
    """Which stages a run may compute: one, those from one on, those up to one; and whose rows it drops first."""

    only: str | None = None
    start: str | None = None
    until: str | None = None
    force: str | None = None
    retry_rejects: bool = False
    """whether these stages try again what they rejected before"""

    def names(self, order: Sequence[str]) -> list[str]:
        """The chosen stages in their order. Raises ValueError for a stage that is not one, or a choice made twice."""
        for name in (self.only, self.start, self.until, self.force):
            if name is not None and name not in order:
                raise ValueError(f"no stage is called {name!r}; there are {', '.join(order)}")
        if self.only is not None:
            for option, name in (("--from", self.start), ("--until", self.until)):
                if name is not None:
                    raise ValueError(f"--only {self.only} is that stage alone; leave out {option} {name}, or --only")
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
    resolve_job_weights(job, run_id)
    plan = make_plan(job)
    check_guides(job, plan, selection.force)
    if selection.force is not None:
        _forget(plan.of(selection.force))
    if selection.retry_rejects:
        for table in (table for name in chosen for table in plan.of(name).tables):
            table.keeper.forget_rejects()
    if selection.force is not None or selection.retry_rejects:
        plan = make_plan(job)
    record = RunRecord(job, run_id, started)
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


def resolve_job_weights(job: Job, run_id: str) -> None:
    """Before anything is planned, find out which weights public names stand for. Raises JobError for a wrong one."""
    cache = weights_cache(job.store)
    guides = guides_in_use([(view, 0) for view in job.views.values()], job.guides)
    if not is_resolved(job.model, cache):
        from stages.vision.towers import ModelError, check_weights

        try:
            check_weights(job.model.name, job.model.weights, job.model.activation)
        except ModelError as error:
            raise JobError(f"model.weights: {error}") from None
        resolve_weights(job.model, cache, run_id)
    for name, guide in guides.items():
        if isinstance(guide, DinoGuide) and not is_resolved(guide, cache):
            _check_guide_name(name, guide)
            resolve_weights(guide, cache, run_id)


def check_guides(job: Job, plan: Plan, forced: str | None) -> None:
    """Before anything starts or is forgotten, that the guides about to be loaded exist. Raises JobError."""
    encoding = plan.of("encode_images")
    tables = [t for t in encoding.tables if t.missing or forced == encoding.stage.name]
    lacking = [table.plan for table in tables if table.plan is not None]
    for name, guide in guides_in_use(lacking, job.guides).items():
        if isinstance(guide, DinoGuide):
            _check_guide_name(name, guide)


def _check_guide_name(name: str, guide: DinoGuide) -> None:
    from stages.vision.dino import check_guide_name

    try:
        check_guide_name(guide.name)
    except ValueError as error:
        raise JobError(f"guides.{name}.name: {error}") from None


def _run_stage(
    job: Job, name: str, plan: Plan, watcher: Watcher, cluster: Cluster, run_id: str, record: RunRecord
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
        sweep_dead_runs(job.store, run_id)
        record.write([], "running")
    start, phases = time.perf_counter(), Counter()
    lacking = [table for table in before.tables if table.missing]
    watcher.stage_started(name, before.stage.units(lacking))
    run = Run(
        id=run_id,
        advance=lambda done, rejected: watcher.advanced(name, done, rejected),
        cluster=cluster.ray,
        max_rejects=job.max_rejects,
        timed=phases.update,
        tell=lambda text: watcher.noted(name, text),
    )
    before.stage.compute(lacking, plan.inputs, run)
    plan = make_plan(job)
    after = plan.of(name)
    present_before = sum(table.present for table in before.tables)
    computed = sum(table.present for table in after.tables) - present_before
    seconds = {phase: round(value, 3) for phase, value in phases.items()}
    result = StageResult(name, computed, present_before, _rejected(after), time.perf_counter() - start, seconds)
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


def explain_failure(error: BaseException) -> str:
    """One line for a person: what failed in a worker, without Ray's wrapping."""
    if isinstance(error, TooManyRejects):
        return str(error)
    cause = getattr(error, "cause", None)
    if cause is not None and "ray" in sys.modules:
        return f"{type(cause).__name__}: {cause}"
    return f"{type(error).__name__}: {error}"
