"""Run the variants of a sweep one after another on one Ray; what they share is computed by the first that needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipeline.cluster import Cluster
from pipeline.dropping import drop_rows
from pipeline.holding import Holding
from pipeline.job_error import JobError
from pipeline.job_file import Variant
from pipeline.job_weights import check_guides, resolve_job_weights
from pipeline.plan import Plan
from pipeline.prepared import Listings
from pipeline.registry import Origin
from pipeline.run import Selection, StageResult, Watcher, run_job
from storage.leases import Claims
from storage.records import new_run_id

BESIDE_THE_TABLE = "project"
"""The stage that a sweep leaves out unless it is asked for: its databases are for queries, a sweep is for its table."""


class HeldCluster(Cluster):
    """A Ray that several runs share: the `stop` at the end of each leaves it running, `release` ends it."""

    def stop(self) -> None:
        """Leave Ray to the next run."""

    def release(self) -> None:
        super().stop()


def for_its_table(selection: Selection, order: Sequence[str]) -> Selection:
    """The selection of a sweep: up to the stage before `project`, unless `project` is asked for by name."""
    named = (selection.only, selection.start, selection.until, selection.force)
    if selection.only or selection.until or BESIDE_THE_TABLE in named:
        return selection
    return replace(selection, until=[name for name in order if name != BESIDE_THE_TABLE][-1])


def run_variants(
    variants: Sequence[Variant],
    watcher: Watcher,
    address: str | None,
    selection: Selection,
    starting: Callable[[Variant], None],
    file: str | None = None,
) -> list[list[StageResult]]:
    """Compute what the variants lack, in order; a result a stage for each. `starting` hears of each before it runs.

    `file` is the job file that they are of. All are checked before the first one starts. Rows that `selection` drops
    are dropped once, at the start, so that a table of several variants is not made several times. Raises what `run_job`
    raises.
    """
    if len(variants) > 1:
        listings = Listings()
        plans = [_checked(variant, selection.force, listings) for variant in variants]
        if selection.force is not None and any(plan.of(selection.force).unknown for plan in plans):
            raise JobError(
                f"--force {selection.force}: which tables that drops is not known before the stages it reads are "
                "computed. Run without --force first"
            )
        if selection.force is not None or selection.retry_rejects:
            _drop(plans, selection, watcher)
        selection = replace(selection, force=None, retry_rejects=False)
    keys = [name for variant in variants for name in variant.job.key_variables]
    cluster = HeldCluster(address, variants[0].job.resources.wait_minutes, keys)
    results = []
    try:
        for variant in variants:
            starting(variant)
            with _named(variant):
                results.append(run_job(variant.job, watcher, cluster, selection, Origin(file, variant.label)))
    finally:
        cluster.release()
    return results


@contextmanager
def _named(variant: Variant) -> Iterator[None]:
    """A JobError says of which variant it speaks."""
    try:
        yield
    except JobError as error:
        raise JobError(str(error) if variant.label is None else f"sweep ({variant.label}): {error}") from None


def _checked(variant: Variant, forced: str | None, listings: Listings) -> Plan:
    """The variant's plan, once its model's weights and its guides are known to exist."""
    with _named(variant):
        resolve_job_weights(variant.job, new_run_id())
        plan = listings.plan(variant.job)
        check_guides(variant.job, plan, forced)
    return plan


def _drop(plans: Sequence[Plan], selection: Selection, watcher: Watcher) -> None:
    """Drop what is forced or tried again, each table once."""
    for store in dict.fromkeys(plan.inputs.store for plan in plans):
        with Claims(store, new_run_id(), {"job": "a sweep"}) as claims:
            of_store = [plan for plan in plans if plan.inputs.store == store]
            drop_rows(of_store, selection, Holding(claims, selection.wait, watcher.announced))
