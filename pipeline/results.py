"""Results: what the evaluate tables of jobs say, as rows for a table, JSON, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from pipeline.plan import Plan


def collect_results(plan: Plan, job: str) -> list[dict[str, Any]]:
    """A row a method, in the job's order: accuracies as fractions in 0..1, seconds an image.

    With several seeds of crop draws accuracies (those of `by_class` too), interval and times are means over them, `sd`
    is their standard deviation, and `confusions`, which are counts of images, are those of the first seed. Methods
    whose evaluation is not there yet are left out.
    """
    by_method: dict[str, list[dict[str, Any]]] = {}
    for table in plan.of("evaluate").tables:
        if table.complete:
            (row,) = table.keeper.read().to_pylist()
            by_method.setdefault(table.plan[0].plan[0].method.row_name, []).append(row)
    return [{"method": method, "job": job} | _merge(rows) for method, rows in by_method.items()]


def _merge(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [row["accuracy"] for row in rows]
    averaged = (
        "accuracy", "low", "high", "top_5", "mean_per_class",
        "seconds_per_image", "encode_seconds_per_image", "score_seconds_per_image",
    )  # fmt: skip
    merged = {name: statistics.fmean(row[name] for row in rows) for name in averaged}
    merged["sd"] = statistics.stdev(accuracies) if len(rows) > 1 else None
    merged["seeds"] = [row["seed"] for row in rows]
    merged |= {name: rows[0][name] for name in ("split", "images", "classes", "confidence")}
    return merged | {"by_class": _merge_classes(rows), "confusions": rows[0]["confusions"]}


def _merge_classes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for one in row["by_class"]:
            found.setdefault(one["class"], []).append(one)
    return [ones[0] | {"accuracy": statistics.fmean(one["accuracy"] for one in ones)} for ones in found.values()]


def distinct_names(names: Sequence[str]) -> None:
    """Raise ValueError when jobs to be shown side by side share a name: their results could not be told apart."""
    for name in names:
        if (count := names.count(name)) > 1:
            raise ValueError(f"{count} of the jobs are called {name!r}; give each its own `name:` in its job file")


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The results as CSV: all columns that hold one value, so neither `by_class` nor `confusions`."""
    out = io.StringIO()
    columns = [name for name in (rows[0] if rows else ["method"]) if name not in ("by_class", "confusions")]
    writer = csv.DictWriter(out, fieldnames=columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {"seeds": " ".join(map(str, row["seeds"]))})
    return out.getvalue()


def to_latex(rows: Sequence[dict[str, Any]]) -> str:
    """A LaTeX tabular: methods down, jobs across, accuracy in percent (booktabs)."""
    jobs = list(dict.fromkeys(row["job"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["method"], row["job"]): row for row in rows}
    lines = [r"\begin{tabular}{l" + "r" * len(jobs) + "}", r"\toprule"]
    lines += [" & ".join(["method", *map(_escape, jobs)]) + r" \\", r"\midrule"]
    for method in methods:
        cells = [_cell(found.get((method, job))) for job in jobs]
        lines.append(" & ".join([_escape(method), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "--"
    spread = f" $\\pm$ {100 * row['sd']:.1f}" if row["sd"] is not None else ""
    return f"{100 * row['accuracy']:.1f}{spread}"


def _escape(name: str) -> str:
    for character in "&%$#_{}":
        name = name.replace(character, "\\" + character)
    return name
