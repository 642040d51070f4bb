"""One figure of results: accuracy with its interval, and milliseconds an image.

One sweep over numbers becomes lines, time below accuracy; further swept keys become panels side by side. Numbers of
shots become lines beside the level ones of methods without. Everything else (variants with names, several jobs, one
job) becomes dots: a row a method, a colour a job, time beside accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
# Colours that people with any of the usual kinds of colour vision tell apart (Okabe and Ito, without the pale yellow).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<>"
GREY = "#666666"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a name with dollar signs is a name
    "svg.fonttype": "none",
    "svg.hashsalt": "fieldmark",
    "pdf.fonttype": 42,
}
WIDE_RANGE = 20.0
"""Swept numbers that span more than this factor get a logarithmic axis."""
LETTERS_ABOVE = 46
"""Letters that a legend over the accuracies has room for; more would push the times aside."""
OTHERS_BESIDE_SHOTS = 3
"""Methods without shots that are drawn beside those with: the best ones."""
LINE_OF_TEXT = 15.0
"""Points between the baselines of labels beside each other."""

Row = Mapping[str, Any]
Swept = Mapping[str, Mapping[str, Any]]


def plot_results(rows: Sequence[Row], out: Path, swept: Swept, title: str) -> None:
    """Draw results into a .png, .svg or .pdf file.

    `rows` are those of `collect_results`. `swept` says for each job of one file which keys its sweep sets to what,
    nothing for a job that is no variant; it is empty where the jobs are of several files, whose numbers are not points
    of one line. Raises OSError where the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        key = axis_key(swept)
        if len({row["job"] for row in rows}) == 1 and len({row["shots"] for row in rows} - {None}) > 1:
            _draw_shots(figure, rows)
        elif key is None:
            _draw_dots(figure, rows)
        else:
            _draw_lines(figure, rows, swept, key)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        figure.savefig(out, dpi=150, metadata=dates.get(out.suffix.lower()))


def axis_key(swept: Swept) -> str | None:
    """The swept key that is the horizontal axis: that with the most values among those that are all numbers.

    None where nothing is swept, the jobs do not all have the same swept keys, or no key has two numbers or more.
    """
    settings = list(swept.values())
    if not settings:
        return None
    keys = list(settings[0])
    if any(list(values) != keys for values in settings):
        return None
    if len({tuple(map(repr, values.values())) for values in settings}) < len(settings):
        return None  # two jobs with the same values would be one above the other
    counts = {key: len({values[key] for values in settings}) for key in keys if _all_numbers(settings, key)}
    best = max(counts, key=lambda key: counts[key], default=None)
    return best if best is not None and counts[best] > 1 else None


def _all_numbers(settings: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(isinstance(values[key], int | float) and not isinstance(values[key], bool) for values in settings)


def _draw_lines(figure: Figure, rows: Sequence[Row], swept: Swept, key: str) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels: dict[str, list[Row]] = {}
    for row in rows:
        others = [f"{name}={value}" for name, value in swept[row["job"]].items() if name != key]
        panels.setdefault(", ".join(others), []).append(row)
    figure.set_size_inches(max(7.2, 2.2 + 3.1 * len(panels)), 6.0)
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1.4))
    ends: dict[str, float] = {}
    for (name, found), (above, below) in zip(panels.items(), grid.T, strict=True):
        above.set_title(name, loc="left", fontsize=10)
        for number, method in enumerate(methods):
            points = sorted((row for row in found if row["method"] == method), key=lambda row: swept[row["job"]][key])
            if points:
                _draw_method(above, below, [swept[row["job"]][key] for row in points], points, number)
                ends[method] = 100 * points[-1]["accuracy"]
        below.set_xlabel(key)
    _scale_numbers(grid[1][0], sorted({values[key] for values in swept.values()}))
    _scale_milliseconds(grid[1][0].yaxis, rows)
    grid[0][0].set_ylabel("top-1 accuracy, %")
    grid[1][0].set_ylabel("ms an image")
    _write_note(figure, rows, "solid: encoding and scoring, dotted: scoring alone")
    _label_ends(figure, grid[0][-1], ends, methods)


def _draw_method(above: Axes, below: Axes, places: Sequence[float], points: Sequence[Row], number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    dashes = "-" if number < len(COLOURS) else "--"
    accuracy = [100 * row["accuracy"] for row in points]
    if len(points) > 1 and _is_one_measurement(points):
        above.plot(places, accuracy, color=colour, linestyle=":")  # the sweep does not touch this method
    else:
        above.plot(places, accuracy, color=colour, linestyle=dashes, marker=MARKERS[number % len(MARKERS)])
        low, high = ([100 * row[bound] for row in points] for bound in ("low", "high"))
        above.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
    below.plot(places, [1000 * row["seconds_per_image"] for row in points], color=colour, linestyle=dashes)
    scoring = [1000 * row["score_seconds_per_image"] for row in points]
    below.plot(places, scoring, color=colour, linestyle=":", linewidth=1.2)


def _is_one_measurement(points: Sequence[Row]) -> bool:
    """Whether the points read one stored row: measured seconds never agree to the last digit otherwise."""
    return len({(row["accuracy"], row["seconds_per_image"], row["score_seconds_per_image"]) for row in points}) == 1


def _scale_numbers(axes: Axes, values: Sequence[float]) -> None:
    """The swept values themselves are the ticks; a wide range of them is logarithmic."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if values[0] > 0 and values[-1] > WIDE_RANGE * values[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _scale_milliseconds(axis: Any, rows: Sequence[Row]) -> None:
    """A logarithmic axis whose ticks are plain numbers, half a decade wide at least."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    seconds = [row[f"{name}seconds_per_image"] for row in rows for name in ("", "score_")]
    shown = [1000 * value for value in seconds if value > 0]
    low, high = min(shown) / 1.6, max(shown) * 1.6
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    few = high / low > 300
    axis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _label_ends(figure: Figure, axes: Axes, ends: Mapping[str, float], methods: Sequence[str]) -> None:
    """The methods' names beside the ends of their lines, moved apart where lines end close together."""
    figure.draw_without_rendering()  # the layout says how high a line of text is
    box = axes.get_window_extent()
    gap = LINE_OF_TEXT / 72 * figure.dpi / box.height
    low, high = axes.get_ylim()
    places = spread_apart([(ends[method] - low) / (high - low) for method in ends], gap)
    for method, place in zip(ends, places, strict=True):
        axes.annotate(
            method,
            xy=(1.0, ends[method]),
            xycoords=("axes fraction", "data"),
            xytext=(1.06, place),
            textcoords="axes fraction",
            color=COLOURS[methods.index(method) % len(COLOURS)],
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.7, "color": "#aaaaaa", "shrinkA": 1, "shrinkB": 1},
        )


def spread_apart(places: Sequence[float], gap: float) -> list[float]:
    """Places in 0..1, in their order from low to high, moved as little as may be until they are `gap` apart.

    They stay inside 0..1 where there is room for them, and else go past 0. (Least squares: less a gap for each place
    below, they must not fall, so those that do share their mean.)
    """
    order = sorted(range(len(places)), key=lambda number: places[number])
    blocks: list[list[float]] = []
    for rank, number in enumerate(order):
        blocks.append([places[number] - rank * gap])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    highest = 1.0 - (len(places) - 1) * gap
    level = [min(max(fmean(block), 0.0), highest) for block in blocks for _ in block]
    moved = [0.0] * len(places)
    for rank, number in enumerate(order):
        moved[number] = level[rank] + rank * gap
    return moved


def _draw_shots(figure: Figure, rows: Sequence[Row]) -> None:
    """Accuracy by shots, a line a few-shot method with a band of one standard deviation; the best others, level."""
    few_shot = [row for row in rows if row["shots"] is not None]
    zero_shot = [row for row in rows if row["shots"] is None]
    others = sorted(zero_shot, key=lambda row: -row["accuracy"])[:OTHERS_BESIDE_SHOTS]
    figure.set_size_inches(7.2, 5.0)
    axes = figure.subplots()
    names = list(dict.fromkeys(row["name"] for row in [*few_shot, *others]))
    ends: dict[str, float] = {}
    for number, name in enumerate(names):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        points = sorted((row for row in few_shot if row["name"] == name), key=lambda row: row["shots"])
        if points:
            shots, accuracy = [row["shots"] for row in points], [100 * row["accuracy"] for row in points]
            spread = [100 * (row["sd"] or 0.0) for row in points]
            axes.plot(shots, accuracy, color=colour, marker=marker)
            band = [[value + sign * sd for value, sd in zip(accuracy, spread, strict=True)] for sign in (-1, 1)]
            axes.fill_between(shots, *band, color=colour, alpha=0.13, linewidth=0)
            ends[name] = accuracy[-1]
        else:
            ends[name] = 100 * next(row["accuracy"] for row in others if row["name"] == name)
            axes.axhline(ends[name], color=colour, linestyle=":", linewidth=1.2)
    _scale_numbers(axes, sorted({row["shots"] for row in few_shot}))
    axes.set_xlabel("shots a class")
    axes.set_ylabel("top-1 accuracy, %")
    images = max(row["images"] for row in rows)
    note = f"bands: one standard deviation over draws of shots; {images:,} images; dotted: without shots"
    figure.supxlabel(note, x=0.99, ha="right", fontsize=8, color=GREY)
    _label_ends(figure, axes, ends, names)


def _draw_dots(figure: Figure, rows: Sequence[Row]) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    jobs = list(dict.fromkeys(row["job"] for row in rows))
    step = 0.7 / max(len(jobs), 2)
    columns = max(1, LETTERS_ABOVE // (max(map(len, jobs)) + 4))
    above = 0.22 * -(-len(jobs) // columns)
    figure.set_size_inches(7.2, 1.6 + above + len(methods) * (0.25 + 0.16 * len(jobs)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.4, 1))
    figure.get_layout_engine().set(wspace=0.04)
    marks = []
    for number, job in enumerate(jobs):
        found = [row for row in rows if row["job"] == job]
        places = [methods.index(row["method"]) + step * (number - (len(jobs) - 1) / 2) for row in found]
        accuracy = [100 * row["accuracy"] for row in found]
        reach = [[100 * abs(row[bound] - row["accuracy"]) for row in found] for bound in ("low", "high")]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        marks.append(left.errorbar(accuracy, places, xerr=reach, fmt=marker, color=colour, elinewidth=1.6))
        right.plot([1000 * row["seconds_per_image"] for row in found], places, marker, color=colour)
        scoring = [1000 * row["score_seconds_per_image"] for row in found]
        right.plot(scoring, places, marker, color=colour, markerfacecolor="white")
    left.set_yticks(range(len(methods)), methods)
    left.set_ylim(len(methods) - 0.5, -0.5)
    left.grid(False, axis="y")
    right.grid(False, axis="y")
    for line in range(1, len(methods)):
        for axes in (left, right):
            axes.axhline(line - 0.5, color="#e4e4e4", linewidth=0.8)
    left.set_xlabel("top-1 accuracy, %")
    right.set_xlabel("ms an image")
    _scale_milliseconds(right.xaxis, rows)
    if len(jobs) > 1:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3}
        left.legend(marks, jobs, ncols=columns, handlelength=1.2, columnspacing=1.5, **place)
    _write_note(figure, rows, "filled: encoding and scoring, open: scoring alone")


def _write_note(figure: Figure, rows: Sequence[Row], times: str) -> None:
    """What the bands or bars are, of how many images, and how to read the times."""
    images = sorted({row["images"] for row in rows})
    counted = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    intervals = f"{100 * rows[0]['confidence']:g} % intervals over {counted} images"
    figure.supxlabel(f"{intervals}; time: {times}", x=0.99, ha="right", fontsize=8, color=GREY)
