"""Tables that people read: results, status, hits, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.durations import tell_duration, tell_moment
from pipeline.forecast import Forecast, total
from pipeline.hits import tell_hit
from pipeline.plan import Plan
from pipeline.results_table import lay_out
from pipeline.why import Why, count
from stages.stage import Table as StageTable
from storage import files
from storage.shards import ShardTable


def status_rows(plan: Plan, why: Why) -> list[dict[str, Any]]:
    """A row a table: stage, table, wanted, present, missing, rejected, why, reasons, unread, bytes, location, path ...

    `why` says in one line why rows are missing, `reasons` are its clauses; `notes` are what else people should know;
    `unread` counts images whose rows stay in
    the table though they are not in the data set (any more). `location` is where the table lies or will lie, `path` the
    same relative to the store; `modified` is when it was last written, in ISO 8601 and UTC, null before that; `seconds`
    is how long its stage took in the newest run in which it computed something, null before that. Counts are null where
    they are known only after another stage. `why` remembers what it reads of the plan's store.
    """
    store, seconds = plan.inputs.store, _seconds_of_stages(why)
    rows = []
    for stage in plan.stages:
        name = stage.stage.name
        if stage.unknown:
            counts = dict.fromkeys(("wanted", "present", "missing", "rejected", "unread"))
            where = dict.fromkeys(("bytes", "location", "path", "modified"))
            reason = {"why": stage.unknown, "reasons": [stage.unknown], "notes": [], "seconds": seconds.get(name)}
            rows.append({"stage": name, "table": None} | counts | where | reason)
        for table in stage.tables:
            location = _location(table)
            rows.append(
                {
                    "stage": name,
                    "table": table.name,
                    "wanted": len(table.wanted),
                    "present": table.present,
                    "missing": len(table.missing),
                    "rejected": len(table.rejected),
                    "unread": why.unread(table),
                    "why": why.words(table),
                    "reasons": why.reasons(table),
                    "notes": list(table.notes),
                    "bytes": table.keeper.bytes(),
                    "location": location,
                    "path": files.relative(location, store),
                    "modified": _modified(table),
                    "seconds": seconds.get(name),
                }
            )
    return rows


def _location(table: StageTable) -> str:
    return table.keeper.folder if isinstance(table.keeper, ShardTable) else table.keeper.uri


def _modified(table: StageTable) -> str | None:
    if isinstance(table.keeper, ShardTable):
        written = table.keeper.modified()
    else:  # the markers that each of a database's tables gets once it is complete
        written = max((stamp for _, stamp in files.list_stamped(table.keeper.uri, ".json")), default=None)
    return None if written is None else datetime.fromtimestamp(written, timezone.utc).isoformat(timespec="seconds")


def _seconds_of_stages(why: Why) -> dict[str, float]:
    """How long each stage took in the newest run of the store in which it computed something."""
    found: dict[str, float] = {}
    for record in why.records:
        found |= {stage["stage"]: stage["seconds"] for stage in record["stages"] if stage["computed"] > 0}
    return found


def show_status(console: Console, rows: Sequence[dict[str, Any]], rejects: Sequence[dict[str, str]]) -> None:
    """Stages with what is there, when it was written, how long that took and where, and why rows are missing."""
    # Gaps of one column, so that most paths stay whole on a terminal of 120.
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("table", overflow="fold")
    for name in ("wanted", "present", "missing", "size", "written", "took"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where, and why rows are missing", overflow="fold")
    told: set[str] = set()
    for row in rows:
        counts = ["" if row[name] is None else f"{row[name]:,}" for name in ("wanted", "present", "missing")]
        size = "" if row["bytes"] is None else _size(row["bytes"])
        written = "" if row["modified"] is None else tell_moment(row["modified"])
        took = "" if row["seconds"] is None or row["stage"] in told else tell_duration(row["seconds"])
        told.add(row["stage"])
        place = row["path"] if row["modified"] else ""
        notes = "\n".join(filter(None, [place, row["why"], *row["notes"], _unread(row["unread"])]))
        table.add_row(row["stage"], escape(row["table"] or ""), *counts, size, written, took, escape(notes))
    console.print(table, highlight=False)
    store = next((row["location"].removesuffix(row["path"]) for row in rows if row["location"] is not None), None)
    if store is not None:
        console.print(f"all of it in {store}", highlight=False, markup=False, soft_wrap=True)
    show_rejects(console, rejects)


def _unread(images: int | None) -> str:
    return f"kept, unread: {count(images, 'image')} not in the data set (any more)" if images else ""


def show_forecast(console: Console, forecasts: Sequence[Forecast]) -> None:
    """What a run would take, a line a stage, and in all."""
    if not forecasts:
        console.print("a run has nothing to do")
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("a run would take", no_wrap=True)
    for name in ("rows", "forward passes", "size", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("going by", overflow="fold")
    for each in forecasts:
        rows, passes = ("" if number is None else f"{number:,}" for number in (each.rows, each.forward_passes))
        size = "" if each.bytes is None else _size(each.bytes)
        table.add_row(each.stage, rows, passes, size, _about(each.seconds), escape(each.basis))
    console.print(table, highlight=False)
    if len(forecasts) > 1 and (seconds := total(each.seconds for each in forecasts)) is not None:
        console.print(f"in all about {tell_duration(seconds)}", highlight=False)


def _about(seconds: float | None) -> str:
    return "not known" if seconds is None else f"about {tell_duration(seconds)}"


def show_rejects(console: Console, rejects: Sequence[dict[str, str]], most: int = 5) -> None:
    """The rejected files with the reasons, the first few."""
    if not rejects:
        return
    console.print(f"{len(rejects):,} {_plural('image', rejects)} rejected:")
    for row in rejects[:most]:
        console.print(f"  {escape(row['uri'])}: {escape(row['reason'])}", highlight=False)
    if len(rejects) > most:
        console.print(f"  and {len(rejects) - most:,} more; fieldmark status JOB --json names them all")


def show_results(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Methods by jobs: accuracy in percent with its interval, calibration, milliseconds an image; marks explained."""
    for part in lay_out(console, rows):
        console.print(part)


def show_hits(console: Console, hits: Sequence[dict[str, Any]]) -> None:
    """Answers to a query, best first."""
    if not hits:
        console.print("no rows fit")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    told = [tell_hit(hit) for hit in hits]
    table.add_column("similarity", justify="right")
    for name in told[0]:
        table.add_column(name, overflow="fold")
    for hit, words in zip(hits, told, strict=True):
        table.add_row(f"{hit['similarity']:.3f}", *map(escape, words.values()))
    console.print(table, highlight=False)


def show_predictions(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Predicted classes with probabilities, image by image."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("image", "method", "class", "probability", "next best"):
        table.add_column(name, justify="right" if name == "probability" else "left", overflow="fold")
    for row in rows:
        others = ", ".join(f"{best['class']} {best['probability']:.2f}" for best in row["top"][1:3])
        table.add_row(
            *map(escape, (row["image"], row["method"], row["class"])),
            f"{row['probability']:.2f}",
            escape(others),
        )
    console.print(table)


def _size(count: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if count < 10 and unit != "B" else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _plural(word: str, rows: Sequence[Any]) -> str:
    return word if len(rows) == 1 else word + "s"
