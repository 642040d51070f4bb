"""`fieldmark results`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import AsJson, Sets
from pipeline.commands.speaking import console, failed, print_json, say, wrong
from pipeline.commands.status import tell_of_twins


def results(
    jobs: Annotated[list[Path], typer.Argument(metavar="JOB...", help="job files")],
    sets: Sets = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="a LaTeX table on standard output")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT", help="also draw accuracy and time: a .png, .svg or .pdf file")
    ] = None,
) -> None:
    """The table of methods by jobs, or by the variants of a sweep, from what is stored."""
    from pipeline.plot import SUFFIXES, plot_results
    from pipeline.prepared import prepare_jobs
    from pipeline.results import collect_comparisons, collect_results, distinct_names, to_csv, to_latex
    from pipeline.show import show_results

    if plot is not None and plot.suffix.lower() not in SUFFIXES:
        raise wrong(f"--plot {plot}: a plot is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    swept: dict[str, Mapping[str, Any]] = {}
    names: list[str] = []
    for path in jobs:
        prepared = prepare_jobs(path, sets or ())
        tell_of_twins(prepared)
        lacking, before = [], len(rows)
        for each in prepared:
            name = each.title if len(jobs) == 1 else each.job.name
            if not each.plan.of("evaluate").done:
                lacking.append(name)
            if found := collect_results(each.plan, name):
                rows += found
                comparisons += collect_comparisons(each.plan, name)
                swept[name] = each.variant.values
                names.append(name)
        if not lacking and len(rows) == before:
            label = [] if prepared[0].label is None else ["--variant", prepared[0].label]
            predictions = prepared[0].call("predict", *label)
            raise failed(f"{path}: no image has a label, so there is no accuracy. Predictions: {predictions}")
        if len(rows) == before:
            raise failed(f"{path}: no results yet; compute them with: {prepared[0].command()}")
        if lacking:
            of = "" if prepared[0].label is None else f" of {', '.join(lacking)}"
            say(f"{path}: some results{of} are not there yet; compute them with: {prepared[0].command()}")
    try:
        distinct_names(names)
    except ValueError as error:
        raise wrong(str(error)) from None
    if plot is not None:
        plot_results(rows, plot, swept if len(jobs) == 1 else {}, title=", ".join(path.stem for path in jobs))
        say(f"wrote {plot}")
    if as_json:
        values = {"swept": swept} if any(swept.values()) else {}
        print_json({"methods": rows, "comparisons": comparisons} | values)
    elif as_csv:
        sys.stdout.write(to_csv(rows))
    elif as_latex:
        sys.stdout.write(to_latex(rows))
    else:
        show_results(console(), rows)
