"""Results: what the evaluate tables of jobs say, as rows for a table, JSON, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from pipeline.plan import Plan
from stages.evaluate import COMPARISONS
from stages.methods.bases import DescriptorMethod
from stages.stage import Table
from stages.statistics import holm

ALPHA = 0.05
"""Methods are told apart where the corrected p value is below this."""
OF_CLASSES = ("by_class", "confusions")
"""Columns that hold a list, so that no cell of a table can."""

LATEX_SIGNS = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}"}
)
"""Characters that mean something to LaTeX, and how they are written."""


def collect_results(plan: Plan, job: str) -> list[dict[str, Any]]:
    """A row a method, in the job's order: accuracies as fractions in 0..1, seconds an image.

    `described_by` is the provider of the descriptors that the method reads, null where it reads none.
    A few-shot method has one a number of shots: `method` is "tip (4)" for four `shots` of the method `name`d tip.
    With several draws (`seeds` of the crops, `draws` of the method's own) accuracies (those of `by_class` too),
    intervals and times are means over them, `sd` is their standard deviation, and `confusions`, which are counts of
    images, are those of the first. `best` marks the most accurate method, the first of equals; of the others `p_best`
    is McNemar's p value of the comparison with it, corrected for their number after Holm, and `told_apart` says whether
    that is below 0.05. Both are null for the best one, and where the comparison is not there yet. Methods are
    left out until all their draws are evaluated: a mean over some of them would be another number than the job's.
    """
    by_method: dict[str, list[Table]] = {}
    for table in plan.of("evaluate").tables:
        if table.name != COMPARISONS:
            by_method.setdefault(table.plan[0].plan[0].method.title, []).append(table)
    providers = {name: each.settings.provider for name, each in plan.of("describe").stage.providers.items()}
    rows = [
        {"method": title, "job": job, "name": method.row_name, "shots": method.shot}
        | {"described_by": providers[method.descriptors] if isinstance(method, DescriptorMethod) else None}
        | _merge([row for table in tables for row in table.keeper.read().to_pylist()])
        for title, tables in by_method.items()
        if all(table.complete for table in tables)
        for method in [tables[0].plan[0].plan[0].method]
    ]
    return _with_best(rows, collect_comparisons(plan, job))


def collect_comparisons(plan: Plan, job: str) -> list[dict[str, Any]]:
    """A row a pair of methods, in the job's order: see `stages.comparisons`. Empty where they are not there yet."""
    for table in plan.of("evaluate").tables:
        if table.name == COMPARISONS and table.complete:
            rows = table.keeper.read(keys=table.wanted).to_pylist()
            return [{"job": job} | {name: value for name, value in row.items() if name != "key"} for row in rows]
    return []


def _merge(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of those of a method's draws."""
    accuracies = [row["accuracy"] for row in rows]
    averaged = (
        "accuracy", "low", "high", "top_5", "mean_per_class", "merged_accuracy", "mean_confidence",
        "calibration_error", "seconds_per_image", "encode_seconds_per_image", "score_seconds_per_image",
    )  # fmt: skip
    merged: dict[str, Any] = {name: _mean([row[name] for row in rows]) for name in averaged}
    merged["sd"] = statistics.stdev(accuracies) if len(rows) > 1 else None
    merged["seeds"] = list(dict.fromkeys(row["seed"] for row in rows))
    merged["draws"] = list(dict.fromkeys(row["draw"] for row in rows if row["draw"] is not None))
    merged |= {name: rows[0][name] for name in ("split", "images", "classes", "forward_passes", "confidence")}
    return merged | {"by_class": _merge_classes(rows), "confusions": rows[0]["confusions"]}


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None where there is nothing: draws of one job share their classes, so all are None or none is."""
    return None if values[0] is None else statistics.fmean(values)


def _merge_classes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for one in row["by_class"]:
            found.setdefault(one["class"], []).append(one)
    return [ones[0] | {"accuracy": statistics.fmean(one["accuracy"] for one in ones)} for ones in found.values()]


def _with_best(rows: list[dict[str, Any]], comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `best`, `p_best` and `told_apart`, before the columns that are lists."""
    best = max(rows, key=lambda row: row["accuracy"])["method"] if rows else None
    against = {
        row["other"] if row["method"] == best else row["method"]: row["p"]
        for row in comparisons
        if best in (row["method"], row["other"])
    }
    corrected = holm(against)
    marked = []
    for row in rows:
        p = corrected.get(row["method"])
        told = {"best": row["method"] == best, "p_best": p, "told_apart": None if p is None else p < ALPHA}
        lists = {name: row[name] for name in OF_CLASSES}
        marked.append({name: value for name, value in row.items() if name not in lists} | told | lists)
    return marked


def distinct_names(names: Sequence[str]) -> None:
    """Raise ValueError when jobs to be shown side by side share a name: their results could not be told apart."""
    for name in names:
        if (count := names.count(name)) > 1:
            raise ValueError(f"{count} of the jobs are called {name!r}; give each its own `name:` in its job file")


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The results as CSV: all columns that hold one value, so neither `by_class` nor `confusions`.

    Seeds and draws are numbers with a space between them, in one cell.
    """
    out = io.StringIO()
    columns = [name for name in (rows[0] if rows else ["method"]) if name not in OF_CLASSES]
    writer = csv.DictWriter(out, fieldnames=columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {name: " ".join(map(str, row[name])) for name in ("seeds", "draws")})
    return out.getvalue()


def to_latex(rows: Sequence[dict[str, Any]]) -> str:
    """A LaTeX tabular (booktabs): accuracy in percent, the best of a column bold, a dagger where not told from it.

    Comments above it say what the marks mean, in words ready for a caption.
    """
    jobs = list(dict.fromkeys(row["job"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["method"], row["job"]): row for row in rows}
    lines = [r"% needs \usepackage{booktabs}", *(f"% {sentence}" for sentence in _caption(rows, jobs))]
    lines += [r"\begin{tabular}{l" + "r" * len(jobs) + "}", r"\toprule"]
    lines += [" & ".join(["method", *map(_escape, jobs)]) + r" \\", r"\midrule"]
    for method in methods:
        cells = [_cell(found.get((method, job))) for job in jobs]
        lines.append(" & ".join([_escape(method), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _caption(rows: Sequence[dict[str, Any]], jobs: Sequence[str]) -> list[str]:
    """Sentences of a caption: what the numbers and marks mean, of how many images."""
    said = ["Top-1 accuracy in percent, the best of each column in bold."]
    if any(row["told_apart"] is False for row in rows):
        said.append(
            r"$^{\dagger}$: not told apart from the best on the same images "
            rf"(McNemar's test, $p \geq {ALPHA:g}$ with Holm's correction)."
        )
    if any(row["sd"] is not None for row in rows):
        said.append(r"Mean $\pm$ standard deviation over draws of crops and of the method's own.")
    sizes: dict[tuple[int, int], list[str]] = {}
    for job in jobs:
        row = next(row for row in rows if row["job"] == job)
        sizes.setdefault((row["images"], row["classes"]), []).append(_escape(job))
    said += [
        f"{', '.join(names)}: {images:,} images, {classes:,} classes." for (images, classes), names in sizes.items()
    ]
    return said


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "--"
    number = f"{100 * row['accuracy']:.1f}"
    if row["best"]:
        number = rf"\textbf{{{number}}}"
    elif row["told_apart"] is False:
        number += r"$^{\dagger}$"
    spread = rf" $\pm$ {100 * row['sd']:.1f}" if row["sd"] is not None else ""
    return number + spread


def _escape(name: str) -> str:
    return name.translate(LATEX_SIGNS)
