"""Tables that people read: results, status, hits, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.plan import Plan
from pipeline.results_table import lay_out
from pipeline.why import why_missing
from stages.stage import Table as StageTable
from storage import files
from storage.records import read_records
from storage.shards import ShardTable


def status_rows(plan: Plan) -> list[dict[str, Any]]:
    """A row a table: stage, table, wanted, present, missing, rejected, why, bytes, location, path, modified, seconds.

    `location` is where the table lies or will lie, `path` the same relative to the store; `modified` is when it was
    last written, in ISO 8601 and UTC, null before that; `seconds` is how long its stage took in the newest run in which
    it computed something, null before that. Counts are null where they are known only after another stage.
    """
    store, seconds = plan.inputs.store, _seconds_of_stages(plan.inputs.store)
    rows = []
    for stage in plan.stages:
        name = stage.stage.name
        if stage.unknown:
            empty = dict.fromkeys(("wanted", "present", "missing", "rejected", "bytes", "location", "path", "modified"))
            rows.append({"stage": name, "table": None, **empty, "seconds": seconds.get(name), "why": stage.unknown})
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
                    "why": why_missing(table, store),
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
    else:  # a database's folder changes with the marker that each of its tables gets once it is complete
        written = files.modified(table.keeper.uri) if files.exists(table.keeper.uri) else None
    return None if written is None else datetime.fromtimestamp(written, timezone.utc).isoformat(timespec="seconds")


def _seconds_of_stages(store: str) -> dict[str, float]:
    """How long each stage took in the newest run of the store in which it computed something."""
    found: dict[str, float] = {}
    for record in read_records(store):
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
        written = "" if row["modified"] is None else _local_time(row["modified"])
        took = "" if row["seconds"] is None or row["stage"] in told else _duration(row["seconds"])
        told.add(row["stage"])
        where = [row["path"]] if row["modified"] is not None else []
        notes = "\n".join([*where, *([row["why"]] if row["why"] else [])])
        table.add_row(row["stage"], escape(row["table"] or ""), *counts, size, written, took, escape(notes))
    console.print(table, highlight=False)
    store = next((row["location"].removesuffix(row["path"]) for row in rows if row["location"] is not None), None)
    if store is not None:
        console.print(f"all of it in {store}", highlight=False, markup=False, soft_wrap=True)
    show_rejects(console, rejects)


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
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = [
        name
        for name in ("similarity", "image", "uri", "class", "split", "view", "box", "text")
        if hits and name in hits[0]
    ]
    names = ["id" if name == "uri" else name for name in names]
    for name in names:
        table.add_column(name, justify="right" if name == "similarity" else "left", overflow="fold")
    for hit in hits:
        table.add_row(*(f"{hit[n]:.3f}" if n == "similarity" else escape(str(hit[n])) for n in names))
    console.print(table if hits else "no rows fit")


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
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _local_time(moment: str) -> str:
    """`4 Mar 14:05`, and `4 Mar 2025` for what is older than half a year."""
    local = datetime.fromisoformat(moment).astimezone()
    recent = datetime.now(timezone.utc) - local < timedelta(days=180)
    return f"{local.day} {local:%b %H:%M}" if recent else f"{local.day} {local:%b %Y}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _plural(word: str, rows: Sequence[Any]) -> str:
    return word if len(rows) == 1 else word + "s"
