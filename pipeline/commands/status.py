"""`fieldmark status`, and what a dry run shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.commands.options import AsJson, JobFile, Sets
from pipeline.commands.speaking import console, print_json, say

if TYPE_CHECKING:
    from pipeline.forecast import Forecast
    from pipeline.plan import Plan
    from pipeline.prepared import Prepared
    from pipeline.run import Selection

Rows = Sequence[Mapping[str, Any]]


def status(job: JobFile, sets: Sets = None, as_json: AsJson = False) -> None:
    """Say what is there, what would run and why. Starts nothing."""
    from pipeline.prepared import prepare_jobs
    from pipeline.show import status_rows
    from pipeline.why import Why

    jobs = prepare_jobs(job, sets or ())
    tell_of_twins(jobs)
    why = Why(jobs[0].job.store)
    rows = [status_rows(each.plan, why) for each in jobs]
    if as_json:
        print_json(by_variant(jobs, _documents(jobs, rows)))
    else:
        _show_tables(jobs, rows)


def dry_run(jobs: Sequence[Prepared], selection: Selection, as_json: bool) -> None:
    """What is missing in the chosen stages, forced rows counted as such, and what it would take, tokens included."""
    from pipeline.asking import questions_left, tell_asking
    from pipeline.forecast import together
    from pipeline.show import show_forecast
    from pipeline.why import Why

    why = Why(jobs[0].job.store)
    rows = rows_to_compute(jobs, selection, why)
    forecasts = forecast_jobs(jobs, rows, why)
    left = questions_left(jobs, selection)
    if as_json:
        documents = [
            found | {"forecast": [asdict(each) for each in some], "asking": [asdict(each) for each in asking]}
            for found, some, asking in zip(_documents(jobs, rows), forecasts, left, strict=True)
        ]
        print_json(by_variant(jobs, documents))
        return
    _show_tables(jobs, rows)
    console().print()
    show_forecast(console(), together(each for some in forecasts for each in some))
    for asking in (each for some in left for each in some):
        console().print(f"would ask {tell_asking(asking)}", highlight=False, markup=False, soft_wrap=True)


def rows_to_compute(jobs: Sequence[Prepared], selection: Selection, why: Any) -> list[list[dict[str, Any]]]:
    """For each job the rows of `status` that a run of these stages is about, with what it would drop as missing."""
    from pipeline.show import status_rows

    return [_selected(status_rows(each.plan, why), each.plan, selection) for each in jobs]


def forecast_jobs(jobs: Sequence[Prepared], rows: Sequence[Rows], why: Any) -> list[list[Forecast]]:
    """What each job would take after those before it: a table that several of them lack is the first one's."""
    from pipeline.forecast import forecast

    told: set[tuple[Any, ...]] = set()
    found = []
    for each, of_job in zip(jobs, rows, strict=True):
        own = [row for row in of_job if (row["stage"], row["location"]) not in told]
        told |= {(row["stage"], row["location"]) for row in of_job if row["location"] is not None}
        found.append(forecast(each.plan, each.job, own, why.records))
    return found


def _documents(jobs: Sequence[Prepared], rows: Sequence[Rows]) -> list[dict[str, Any]]:
    rejects = [each.plan.rejects for each in jobs]
    pairs = zip(rows, rejects, strict=True)
    return [{"stages": found, "rejects": len(bad), "rejected": bad} for found, bad in pairs]


def _show_tables(jobs: Sequence[Prepared], rows: Sequence[Rows]) -> None:
    """The tables of each job, those of several variants once."""
    from pipeline.show import show_status

    told: set[tuple[Any, ...]] = set()
    for each, found in zip(jobs, rows, strict=True):
        if each.label is not None:
            console().print(each.label, style="bold", highlight=False, markup=False)
        news = [row for row in found if row["location"] is None or (row["stage"], row["location"]) not in told]
        told |= {(row["stage"], row["location"]) for row in found}
        if news:
            show_status(console(), news, each.plan.rejects)
        else:
            console().print("reads and writes the tables above, and no other")


def by_variant(jobs: Sequence[Prepared], documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The JSON document of a job; of a sweep, those of its variants with their labels."""
    if jobs[0].label is None:
        return documents[0]
    pairs = zip(jobs, documents, strict=True)
    return {"variants": [{"variant": each.label} | document for each, document in pairs]}


def _selected(rows: list[dict[str, Any]], plan: Plan, selection: Selection) -> list[dict[str, Any]]:
    chosen = selection.names([stage.stage.name for stage in plan.stages])
    rows = [row for row in rows if row["stage"] in chosen]
    for row in rows:
        if selection.retry_rejects and row["rejected"]:
            tried = {"missing": row["missing"] + row["rejected"], "rejected": 0}
            row |= tried | {"why": "--retry-rejects", "reasons": ["--retry-rejects"]}
        if row["stage"] == selection.force and row["wanted"] is not None:
            dropped = {"present": 0, "missing": row["wanted"], "rejected": 0}
            row |= dropped | {"why": "--force", "reasons": ["--force"]}
    return rows


def tell_of_twins(jobs: Sequence[Prepared]) -> bool:
    """Say which variants make the same predictions, since it was hardly meant; whether there are any."""
    from pipeline.prepared import find_twins

    twins = find_twins(jobs)
    for labels in twins:
        same = ", ".join(map(repr, labels))
        say(f"{jobs[0].file}: sweep: {same} make the same predictions: no method reads what is swept")
    return bool(twins)
