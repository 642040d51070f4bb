"""The table of results that people read, in the layout that says most of those that fit their terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.results import ALPHA

Rows = Sequence[dict[str, Any]]

NOT_TOLD_APART = f"* not told apart from the best (McNemar's test, Holm-corrected p >= {ALPHA:g})"
WOULD_ADD = (
    "words for what classes look like would add to that: a descriptor set with `provider: openai` (a language model) "
    "or `provider: file`"
)
LEFT_OUT = "columns are left out to fit: a wider terminal, --csv and --json have them"
MOST_ALIGNED = 24
"""Columns of a terminal that names of methods may take so that tables of several jobs line up."""


class Column(NamedTuple):
    """A figure of a method: what stands above it, and how it is written."""

    header: str
    cell: Callable[[dict[str, Any]], str | Text]


class Layout(NamedTuple):
    """Tables and headings, and whether all columns are among them."""

    parts: list[Text | Table]
    whole: bool


def lay_out(console: Console, rows: Rows) -> Iterator[RenderableType]:
    """What to print, one after the other: the results, then what their marks mean and what they are of.

    The first layout is taken that is no wider than the console, or the last.
    """
    jobs = _distinct(rows, "job")
    few_shot = [row for row in rows if row["shots"] is not None]
    if others := [row for row in rows if row["shots"] is None]:
        yield from _fitting(console, others)
    if few_shot:
        yield from _by_shots(few_shot, jobs)
    if any(row["told_apart"] is False for row in rows):
        yield Text(NOT_TOLD_APART)
    yield from map(Text, _names_alone(rows, jobs))
    yield from map(Text, _counts(rows, jobs))


def _fitting(console: Console, rows: Rows) -> Iterator[RenderableType]:
    jobs = _distinct(rows, "job")
    layouts = _layouts_of_one(rows) if len(jobs) == 1 else _layouts_of_several(rows, jobs)
    fitting = (layout for layout in layouts if _width(console, layout) <= console.width)
    chosen = next(fitting, layouts[-1])
    yield from chosen.parts
    if not chosen.whole:
        yield Text(LEFT_OUT)


def _by_shots(rows: Rows, jobs: Sequence[str]) -> Iterator[RenderableType]:
    """Few-shot methods: numbers of shots down the side, methods across, a table a job."""
    for job in jobs:
        of_job = [row for row in rows if row["job"] == job]
        found = {(row["shots"], row["name"]): row for row in of_job}
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("shots\na class", justify="right", no_wrap=True)
        names = _distinct(of_job, "name")
        for name in names:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for shots in sorted({row["shots"] for row in of_job}):
            cells = [found.get((shots, name)) for name in names]
            table.add_row(str(shots), *("" if row is None else _with_sd(row) for row in cells))
        yield Text()
        if len(jobs) > 1:
            yield Text(job, style="bold")
        yield table


def _with_sd(row: dict[str, Any]) -> Text:
    spread = "" if row["sd"] is None else f" ± {100 * row['sd']:.1f}"
    return Text.assemble(_top_1(row), spread)


def _layouts_of_one(rows: Rows) -> list[Layout]:
    return [Layout([_grid(rows, "method", "job", columns)], columns is _all_columns) for columns in COLUMNS_OF_ONE]


def _layouts_of_several(rows: Rows, jobs: Sequence[str]) -> list[Layout]:
    """Jobs side by side, with fewer and fewer columns; methods side by side; one job below the other."""
    widest = min(MOST_ALIGNED, max(len(row["method"]) for row in rows))
    layouts = [
        Layout([_grid(rows, "method", "job", _all_columns)], True),
        Layout([_grid(rows, "method", "job", _main_columns)], False),
        Layout([_grid(rows, "method", "job", _accuracy)], False),
        Layout([_grid(rows, "job", "method", _accuracy)], False),
    ]
    for columns in COLUMNS_OF_ONE:
        parts: list[Text | Table] = []
        for job in jobs:
            of_job = [row for row in rows if row["job"] == job]
            parts += [Text(job, style="bold"), _grid(of_job, "method", "job", columns, widest), Text()]
        layouts.append(Layout(parts, columns is _all_columns))
    return layouts


def _grid(
    rows: Rows, down: str, across: str, columns: Callable[[Rows], list[Column]], min_width: int | None = None
) -> Table:
    """A line for each value of the key `down`, a group of columns for each of the key `across`."""
    found = {(row[down], row[across]): row for row in rows}
    groups = {name: columns([row for row in rows if row[across] == name]) for name in _distinct(rows, across)}
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(down, overflow="fold", min_width=min_width)
    for name, group in groups.items():
        for place, column in enumerate(group):
            title = f"{name}\n" if place == 0 and len(groups) > 1 else ""
            table.add_column(Text(title + column.header), justify="right", no_wrap=True)
    for value in _distinct(rows, down):
        cells: list[str | Text] = []
        for name, group in groups.items():
            row = found.get((value, name))
            cells += [column.cell(row) if row is not None else "" for column in group]
        table.add_row(Text(value), *cells)
    return table


def _all_columns(rows: Rows) -> list[Column]:
    """What is known of a job's methods; a column that would say nothing is left out."""
    *accuracy, milliseconds = _main_columns(rows)
    columns = [*accuracy, Column("per\nclass %", _percent("mean_per_class"))]
    if any(row["merged_accuracy"] is not None for row in rows):
        columns.append(Column("names\nmerged %", _percent("merged_accuracy")))
    return [*columns, Column("calibration\nerror %", _percent("calibration_error")), milliseconds]


def _main_columns(rows: Rows) -> list[Column]:
    interval = f"{100 * rows[0]['confidence']:g} %\ninterval"
    return [
        *_accuracy(rows),
        Column(interval, lambda row: f"{100 * row['low']:.1f} - {100 * row['high']:.1f}"),
        Column("ms per\nimage", lambda row: f"{1000 * row['seconds_per_image']:.1f}"),
    ]


def _accuracy(rows: Rows) -> list[Column]:
    columns = [Column("top-1 %", _top_1)]
    if any(row["sd"] is not None for row in rows):
        columns.append(Column("sd", lambda row: "" if row["sd"] is None else f"{100 * row['sd']:.1f}"))
    return columns


def _top_1(row: dict[str, Any]) -> Text:
    mark = "* " if row["told_apart"] is False else ""
    return Text(f"{mark}{100 * row['accuracy']:.1f}", style="bold" if row["best"] else "")


def _percent(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: "" if row[name] is None else f"{100 * row[name]:.1f}"


COLUMNS_OF_ONE = (_all_columns, _main_columns)
"""What can be shown of a job on its own, the most first."""


def _width(console: Console, layout: Layout) -> int:
    """How wide the widest of its tables would like to be; headings are folded."""
    unbounded = console.options.update(width=100_000)
    return max(console.measure(part, options=unbounded).maximum for part in layout.parts if isinstance(part, Table))


def _distinct(rows: Rows, name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def _names_alone(rows: Rows, jobs: Sequence[str]) -> list[str]:
    """What descriptors would add to jobs of which no method has any but sentences of the class names."""
    said = {job: {row["described_by"] for row in rows if row["job"] == job} - {None} for job in jobs}
    poor = [job for job in jobs if said[job] == {"names"}]
    names = _distinct([row for row in rows if row["job"] in poor and row["described_by"] == "names"], "name")
    of = f"{', '.join(poor)}: " if 0 < len(poor) < len(jobs) else ""
    return [f"{of}{', '.join(names)} know class names alone; {WOULD_ADD}"] if poor else []


def _counts(rows: Rows, jobs: Sequence[str]) -> list[str]:
    """Of how many images, classes and draws the numbers are; jobs that agree share a line."""
    same: dict[str, list[str]] = {}
    for job in jobs:
        of_job = [row for row in rows if row["job"] == job]
        images, classes = of_job[0]["images"], of_job[0]["classes"]
        said = f"{images:,} images, {classes:,} classes, chance {100 / classes:.1f} %"
        seeds = max((row["seeds"] for row in of_job), key=len)
        if len(seeds) > 1:
            said += f"; mean and sd over crop seeds {', '.join(map(str, seeds))}"
        own = dict.fromkeys(f"{row['name']} {len(row['draws'])}" for row in of_job if len(row["draws"]) > 1)
        if own:
            said += f"; mean and sd over the method's own draws: {', '.join(own)}"
        same.setdefault(said, []).append(job)
    if len(jobs) > 1 and len(same) == 1:
        return [f"all: {said}" for said in same]
    return [f"{', '.join(names)}: {said}" for said, names in same.items()]
