"""Tables that people read: results, status, hits, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.plan import Plan, why_missing
from storage.shards import ShardTable


def status_rows(plan: Plan) -> list[dict[str, Any]]:
    """A row a table: stage, table, wanted, present, missing, rejected, why, bytes, location, when it was last written.

    Counts are null where they are known only after another stage.
    """
    rows = []
    for stage in plan.stages:
        if stage.unknown:
            empty = dict.fromkeys(("wanted", "present", "missing", "rejected", "bytes", "location", "modified"))
            rows.append({"stage": stage.stage.name, "table": None, **empty, "why": stage.unknown})
        for table in stage.tables:
            shards = isinstance(table.keeper, ShardTable)
            rows.append(
                {
                    "stage": stage.stage.name,
                    "table": table.name,
                    "wanted": len(table.wanted),
                    "present": table.present,
                    "missing": len(table.missing),
                    "rejected": len(table.rejected),
                    "why": why_missing(table, plan.inputs.store),
                    "bytes": table.keeper.bytes(),
                    "location": table.keeper.folder if shards else table.keeper.uri,
                    "modified": table.keeper.modified() if shards else None,
                }
            )
    return rows


def show_status(console: Console, rows: Sequence[dict[str, Any]], rejects: Sequence[dict[str, str]]) -> None:
    """Stages with what is there, what is missing and why; then the rejected files."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, side in (("stage", "left"), ("table", "left"), ("wanted", "right"), ("present", "right")):
        table.add_column(name, justify=side)
    table.add_column("missing", justify="right")
    table.add_column("size", justify="right")
    table.add_column("why", overflow="fold")
    for row in rows:
        counts = ["" if row[name] is None else f"{row[name]:,}" for name in ("wanted", "present", "missing")]
        size = "" if row["bytes"] is None else _size(row["bytes"])
        table.add_row(row["stage"], escape(row["table"] or ""), *counts, size, escape(row["why"]))
    console.print(table)
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
    """Methods down, jobs across: accuracy in percent with its interval, and seconds an image."""
    jobs = list(dict.fromkeys(row["job"] for row in rows))
    found = {(row["method"], row["job"]): row for row in rows}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for job in jobs:
        table.add_column(f"{escape(job)}\ntop-1 %", justify="right")
        table.add_column("\n95 % interval", justify="right")
        table.add_column("\nper class %", justify="right")
        table.add_column("\nms / image", justify="right")
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [cell for job in jobs for cell in _result_cells(found.get((method, job)))]
        table.add_row(escape(method), *cells)
    console.print(table)
    for job in jobs:
        row = next(row for row in rows if row["job"] == job)
        seeds = f", mean and sd over seeds {row['seeds']}" if len(row["seeds"]) > 1 else ""
        console.print(
            f"{job}: {row['images']:,} images, {row['classes']:,} classes, chance {100 / row['classes']:.1f} %{seeds}",
            highlight=False,
            markup=False,
        )


def _result_cells(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["", "", "", ""]
    spread = f" ± {100 * row['sd']:.1f}" if row["sd"] is not None else ""
    return [
        f"{100 * row['accuracy']:.1f}{spread}",
        f"{100 * row['low']:.1f} - {100 * row['high']:.1f}",
        f"{100 * row['mean_per_class']:.1f}",
        f"{1000 * row['seconds_per_image']:.1f}",
    ]


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


def _plural(word: str, rows: Sequence[Any]) -> str:
    return word if len(rows) == 1 else word + "s"
