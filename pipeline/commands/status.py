"""`fieldmark status`, and what a dry run shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.commands.options import AsJson, JobFile, Sets
from pipeline.commands.speaking import console, print_json, say

if TYPE_CHECKING:
    from pipeline.prepared import Prepared


def status(job: JobFile, sets: Sets = None, as_json: AsJson = False) -> None:
    """Say what is there, what would run and why. Starts nothing."""
    from pipeline.prepared import prepare_jobs

    jobs = prepare_jobs(job, sets or ())
    tell_of_twins(jobs)
    print_status(jobs, as_json)


def print_status(jobs: Sequence[Prepared], as_json: bool, selection: Any = None) -> None:
    """What is there and what is missing; with a selection, of its stages alone, forced rows counted as missing."""
    from pipeline.show import show_status, status_rows

    rows = [_selected(status_rows(each.plan), each.plan, selection) for each in jobs]
    rejects = [each.plan.rejects for each in jobs]
    if as_json:
        pairs = zip(rows, rejects, strict=True)
        documents = [{"stages": found, "rejects": len(bad), "rejected": bad} for found, bad in pairs]
        print_json(by_variant(jobs, documents))
        return
    told: set[tuple[Any, ...]] = set()
    for each, found, bad in zip(jobs, rows, rejects, strict=True):
        if each.label is not None:
            console().print(each.label, style="bold", highlight=False, markup=False)
        news = [row for row in found if row["location"] is None or (row["stage"], row["location"]) not in told]
        told |= {(row["stage"], row["location"]) for row in found}
        if news:
            show_status(console(), news, bad)
        else:
            console().print("reads and writes the tables above, and no other")


def by_variant(jobs: Sequence[Prepared], documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The JSON document of a job; of a sweep, those of its variants with their labels."""
    if jobs[0].label is None:
        return documents[0]
    pairs = zip(jobs, documents, strict=True)
    return {"variants": [{"variant": each.label} | document for each, document in pairs]}


def _selected(rows: list[dict[str, Any]], plan: Any, selection: Any) -> list[dict[str, Any]]:
    if selection is None:
        return rows
    chosen = selection.names([stage.stage.name for stage in plan.stages])
    rows = [row for row in rows if row["stage"] in chosen]
    for row in rows:
        if selection.retry_rejects and row["rejected"]:
            row |= {"missing": row["missing"] + row["rejected"], "rejected": 0, "why": "--retry-rejects"}
        if row["stage"] == selection.force and row["wanted"] is not None:
            row |= {"present": 0, "missing": row["wanted"], "rejected": 0, "why": "--force"}
    return rows


def tell_of_twins(jobs: Sequence[Prepared]) -> bool:
    """Say which variants make the same predictions, since it was hardly meant; whether there are any."""
    from pipeline.prepared import find_twins

    twins = find_twins(jobs)
    for labels in twins:
        same = ", ".join(map(repr, labels))
        say(f"{jobs[0].file}: sweep: {same} make the same predictions: no method reads what is swept")
    return bool(twins)
