"""Run a job: plan, compute what is missing stage by stage, plan again, and keep a record of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clean_stop import was_terminated
from pipeline.cluster import Cluster
from pipeline.dropping import drop_rows
from pipeline.failure import no_space
from pipeline.forecast import work
from pipeline.holding import Holding
from pipeline.job_weights import check_guides, resolve_job_weights
from pipeline.plan import OF_SOME_JOBS, Plan, StagePlan, make_plan, stages_of
from pipeline.record import RunRecord, sweep_dead_runs
from pipeline.registry import Origin, Registry
from pipeline.settings import Job
from pipeline.worker_paths import paths_that_workers_use
from stages.stage import Run, Table, TooManyRejects, check_rejects
from storage.leases import Claims
from storage.records import new_run_id


class Watcher(Protocol):
    """Sees a run go by: a progress bar, log lines, or nothing."""

    def stage_started(self, stage: str, units: int | None, present: int) -> None: ...
    def advanced(self, stage: str, done: int, rejected: int) -> None: ...
    def noted(self, stage: str, text: str) -> None: ...
    def announced(self, text: str) -> None: ...
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
    work: int = 0
    """how much there was to do, in the unit that decides the stage's time (`pipeline.forecast.work`)"""


@dataclass(frozen=True)
class Selection:
    """Which stages a run may compute: one, those from one on, those up to one; and whose rows it drops first."""

    only: str | None = None
    start: str | None = None
    until: str | None = None
    force: str | None = None
    retry_rejects: bool = False
    """whether these stages try again what they rejected before"""
    wait: bool = False
    """whether to wait for another run that holds what this one needs, instead of raising StoreHeld"""

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


def run_job(
    job: Job,
    watcher: Watcher,
    cluster: Cluster,
    selection: Selection = Selection(),
    origin: Origin = Origin(),  # noqa: B008  frozen
) -> list[StageResult]:
    """Compute what is missing. Returns a result a stage, in order. Raises what a stage raises, after noting it.

    Raises StoreHeld where another run computes or drops what this one needs, and NoSpace where a disk is full.
    """
    started = time.time()
    order = [stage.name for stage in stages_of(job)]
    selection.check(order)
    running = _JobRun(job, watcher, cluster, selection, origin, started)
    return running.compute(selection.names(order))


class _JobRun:
    """One run of a job: its plan as far as it is known, what it holds of the store, and what it has done."""

    def __init__(
        self, job: Job, watcher: Watcher, cluster: Cluster, selection: Selection, origin: Origin, started: float
    ):
        self.job, self.watcher, self.cluster, self.selection = job, watcher, cluster, selection
        self.id = new_run_id()
        resolve_job_weights(job, self.id)
        self.plan = make_plan(job)
        check_guides(job, self.plan, selection.force)
        self.record = RunRecord(job, self.id, started, origin)
        self.registry = Registry(job, origin)
        self.claims = Claims(job.store, self.id, {"job": job.name})
        self.holding = Holding(self.claims, selection.wait, watcher.announced)
        self.results: list[StageResult] = []
        self.finished: list[Table] = []
        """tables of the stage that was computed last, whose rows are held until the next one is taken"""
        self.reached_ray = False

    def compute(self, chosen: Sequence[str]) -> list[StageResult]:
        """Compute these stages in order, and note how it ended, whatever that was; raises what a stage raises."""
        ending = "interrupted"
        with ExitStack() as at_the_end:  # the last first, each also where another fails
            at_the_end.callback(self.claims.release)
            at_the_end.callback(lambda: self._end(ending))
            at_the_end.callback(self.cluster.stop)
            at_the_end.callback(self.watcher.closed)
            try:
                forced = self.selection.force
                late = forced is not None and bool(self.plan.of(forced).unknown)
                self._drop_rows(self.selection)
                for place, name in enumerate(chosen):
                    if late and name == forced:  # what there is to drop is known only now
                        self._drop_rows(replace(self.selection, retry_rejects=False))
                    with _told_of_full_disks(name, self.job.store):
                        self._stage(name, chosen[place:])
                ending = "done"
            except KeyboardInterrupt:
                ending = "terminated" if was_terminated() else "interrupted"
                raise
            except Exception as error:
                ending = f"failed: {error}"
                if isinstance(error, TooManyRejects):
                    self.plan = make_plan(self.job, self.plan.listed)  # the record names them
                raise
        return self.results

    def _drop_rows(self, selection: Selection) -> None:
        if drop_rows([self.plan], selection, self.holding):
            self.plan = make_plan(self.job, self.plan.listed)

    def _stage(self, name: str, rest: Sequence[str]) -> None:
        """Compute a stage; `rest` are the stages still to come, itself among them."""
        while True:
            before = self.plan.of(name)
            if before.unknown:
                raise RuntimeError(f"{name} cannot run yet: its work is {before.unknown}. Run that stage first.")
            if before.done:
                self._ended(self._nothing_to_do(before))
                return
            _check_inputs(self.plan, before)
            if not self.holding.to_compute(self.plan, rest):
                break
            self.plan = make_plan(self.job, self.plan.listed)
        # Not before this stage is taken: a run that waits for the former one would go on with this one in its place.
        self.holding.computed(self.finished)
        if not self.record.begun:
            sweep_dead_runs(self.job.store, self.id)
            self._note("running")
        self._ended(self._compute(before))
        self._note("running")

    def _ended(self, result: StageResult) -> None:
        if result.stage in OF_SOME_JOBS and not self.plan.of(result.stage).tables:
            return  # nothing in the job is what it is for
        self.results.append(result)
        self.watcher.stage_ended(result.stage, result)

    def _nothing_to_do(self, stage: StagePlan) -> StageResult:
        name, rejected = stage.stage.name, _rejected(stage)
        if rejected:
            check_rejects(name, rejected, len(stage.tables[0].wanted), self.job.max_rejects)
        return StageResult(name, 0, sum(table.present for table in stage.tables), rejected, 0.0)

    def _compute(self, before: StagePlan) -> StageResult:
        name, phases = before.stage.name, Counter()
        lacking = [table for table in before.tables if not table.complete]
        units, to_do = before.stage.units(lacking), work(name, lacking)
        self.watcher.stage_started(name, units, _there_before(lacking, units))
        run = Run(
            id=self.id,
            advance=lambda done, rejected: self.watcher.advanced(name, done, rejected),
            cluster=self._reach_ray,
            max_rejects=self.job.max_rejects,
            wait_minutes=self.cluster.wait_minutes,
            timed=phases.update,
            tell=lambda text: self.watcher.noted(name, text),
            still_ours=self.claims.check,
        )
        start = time.perf_counter()
        before.stage.compute(lacking, self.plan.inputs, run)
        self.finished = lacking
        self.plan = make_plan(self.job, self.plan.listed)
        after = self.plan.of(name)
        present = sum(table.present for table in before.tables)
        computed = sum(table.present for table in after.tables) - present
        seconds = {phase: round(value, 3) for phase, value in phases.items()}
        took = time.perf_counter() - start
        return StageResult(name, computed, present, _rejected(after), took, seconds, to_do)

    def _reach_ray(self) -> ModuleType:
        ray = self.cluster.ray()
        if not self.reached_ray:
            self.cluster.check_shared(paths_that_workers_use(self.job, self.plan.inputs))
            self.record.cluster = self.cluster.describe() or {}
            if self.cluster.dashboard:
                self.watcher.announced(f"Ray's dashboard: {self.cluster.dashboard}")
            self.reached_ray = True
        return ray

    def _note(self, ending: str) -> None:
        """Keep the record and the registry's entry as of now."""
        self.record.write(self.plan, self.results, ending)
        if ending != "running" or self.registry.outdated(self.plan):
            self.registry.register(self.plan, self.id)
            if warning := self.registry.warning():
                self.watcher.announced(warning)

    def _end(self, ending: str) -> None:
        """Note how it ended, also of a run that computed nothing under settings that were not the last ones."""
        if not (self.record.begun or (ending == "done" and self.registry.outdated(self.plan))):
            return
        try:
            self._note(ending)
        except (OSError, ValueError) as error:
            if ending == "done":
                raise
            self.watcher.announced(f"the run's record could not be written: {error}")  # and why it ended is told too


@contextmanager
def _told_of_full_disks(stage: str, store: str) -> Iterator[None]:
    """A full disk, here or on a worker, becomes one clear line."""
    try:
        yield
    except Exception as error:
        full = no_space(error, stage, store)
        if full is None:
            raise
        raise full from error


def _check_inputs(plan: Plan, stage: StagePlan) -> None:
    """A stage reads complete tables only. Raises RuntimeError where --only or --from left one out."""
    for name in stage.stage.reads:
        lacking = [table for table in plan.of(name).tables if not table.complete]
        if lacking:
            raise RuntimeError(
                f"{stage.stage.name} reads {name}, where {lacking[0].name} lacks {len(lacking[0].missing):,} rows: "
                f"run {name} first"
            )


def _rejected(plan: StagePlan) -> int:
    """Images rejected in any of the stage's tables, each once."""
    return len(set().union(*(table.rejected for table in plan.tables)))


def _there_before(lacking: Sequence[Table], units: int | None) -> int:
    """How many rows a bar begins with: the distinct keys that these tables want, less what is to do."""
    if units is None:
        return 0
    wanted = {id(table.wanted): table.wanted for table in lacking}  # most tables of a stage share theirs
    chunks = [chunk for keys in wanted.values() for chunk in keys.chunks]
    distinct = len(lacking[0].wanted) if len(wanted) == 1 else pc.count_distinct(pa.chunked_array(chunks)).as_py()
    return max(0, distinct - units)
