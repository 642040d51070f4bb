"""A plot shows every method, keeps names as they are, and picks lines for numbers and dots for everything else."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.plot import axis_key, plot_results, spread_apart


def row(method: str, job: str, accuracy: float, seconds: float = 0.05) -> dict:
    return {
        "method": method,
        "job": job,
        "name": method,
        "shots": None,
        "accuracy": accuracy,
        "low": accuracy - 0.02,
        "high": accuracy + 0.02,
        "confidence": 0.95,
        "images": 800,
        "seconds_per_image": seconds,
        "score_seconds_per_image": seconds / 100,
    }


def numbers(key: str, values: list[float], methods: dict[str, float]) -> tuple[list[dict], dict[str, dict]]:
    """Rows and swept values of methods whose accuracy grows by the given step from one value to the next."""
    swept = {f"{key}={value}": {key: value} for value in values}
    rows = [
        row(method, job, 0.4 + step * place, 0.01 * (place + 1))
        for place, job in enumerate(swept)
        for method, step in methods.items()
    ]
    return rows, swept


def texts(svg: Path) -> list[str]:
    """What is written in an SVG, where text is kept as text."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))


def paths_of(svg: Path, colour: str) -> list[str]:
    """The lines of an SVG that have this colour."""
    return re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; [^"]*stroke: {colour}', svg.read_text("utf-8"))


def test_a_sweep_over_numbers_is_a_line_a_method_with_its_name_at_the_end(tmp_path):
    rows, swept = numbers("crops", [1, 4, 16], {"dnd": 0.1, "cupl": 0.0})
    plot_results(rows, tmp_path / "out.svg", swept, "crops")
    said = texts(tmp_path / "out.svg")
    assert {"dnd", "cupl", "crops", "top-1 accuracy, %", "ms an image", "1", "4", "16"} <= set(said)
    assert any("95 % intervals over 800 images" in text for text in said)
    first = paths_of(tmp_path / "out.svg", "#0072b2")[0]
    heights = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", first)]
    assert len(heights) == 3
    assert heights == sorted(heights, reverse=True), "accuracy grows, and SVG counts down the page"


def test_a_method_that_the_sweep_does_not_touch_is_dotted_and_one_that_ties_by_chance_is_not(tmp_path):
    swept = {f"n={n}": {"n": n} for n in (1, 2)}
    same = [row("cupl", job, 0.5, 0.03) for job in swept]
    ties = [row("dnd", job, 0.5, 0.01 * n) for n, job in enumerate(swept, start=1)]
    for name, rows, bands in (("same", same, 0), ("ties", ties, 1)):
        plot_results(rows, tmp_path / f"{name}.svg", swept, "")
        assert (tmp_path / f"{name}.svg").read_text().count("fill-opacity: 0.13") == bands


@pytest.mark.parametrize(("values", "ratio"), [([1, 10, 100], 1), ([1, 4, 16], 4)])
def test_numbers_over_a_wide_range_get_a_logarithmic_axis_and_others_a_plain_one(tmp_path, values, ratio):
    rows, swept = numbers("n", values, {"dnd": 0.1})
    plot_results(rows, tmp_path / "out.svg", swept, "")
    across = [float(x) for x, _ in re.findall(r"[ML] ([\d.]+) ([\d.]+)", paths_of(tmp_path / "out.svg", "#0072b2")[0])]
    first, second = (after - before for before, after in pairwise(across))
    assert second == pytest.approx(ratio * first, rel=1e-3)


def test_a_second_swept_key_becomes_panels_in_the_order_of_the_sweep(tmp_path):
    swept = {f"{m} {n}": {"max_descriptors": m, "layer": n} for n in (5, 2) for m in (1, 2, 4)}
    rows = [row("abs", job, 0.5 + 0.01 * values["max_descriptors"]) for job, values in swept.items()]
    assert axis_key(swept) == "max_descriptors"
    plot_results(rows, tmp_path / "out.svg", swept, "")
    said = texts(tmp_path / "out.svg")
    assert said.index("layer=5") < said.index("layer=2")
    assert said.count("max_descriptors") == 2


@pytest.mark.parametrize(
    ("swept", "key"),
    [
        ({"a": {"n": 1}, "b": {"n": 2.5}}, "n"),
        ({"a": {"guide": "clip"}, "b": {"guide": "dino"}}, None),
        ({"a": {"n": 1}, "b": {"n": None}}, None),
        ({"a": {"n": True}, "b": {"n": False}}, None),
        ({"a": {}, "b": {}}, None),
        ({}, None),
        ({"a": {"n": 1}}, None),
        ({"a": {"n": 1}, "b": {"m": 2}}, None),
        ({"a": {"n": 1}, "b": {}}, None),
        ({"one a": {"n": 1}, "one b": {"n": 2}, "two a": {"n": 1}, "two b": {"n": 2}}, None),
        ({"a": {"guide": "clip", "n": 1}, "b": {"guide": "clip", "n": 2}}, "n"),
    ],
)
def test_the_axis_is_the_key_of_numbers_with_most_values_or_there_is_none(swept, key):
    assert axis_key(swept) == key


def test_names_jobs_and_one_job_are_dots_a_row_a_method(tmp_path):
    rows = [row(method, job, 0.5) for job in ("random", "clip") for method in ("dnd", "abs")]
    plot_results(rows, tmp_path / "two.svg", {"random": {"guide": "random"}, "clip": {"guide": "clip"}}, "guides")
    assert {"dnd", "abs", "random", "clip", "guides"} <= set(texts(tmp_path / "two.svg"))
    plot_results(rows[:2], tmp_path / "one.svg", {"random": {}}, "one job")
    said = texts(tmp_path / "one.svg")
    assert {"dnd", "abs"} <= set(said)
    assert "random" not in said, "one job needs no legend"


def of_shots(name: str, accuracy: dict[int, float], sd: float | None = 0.02) -> list[dict]:
    """Rows of a few-shot method, by number of shots."""
    same = {"name": name, "sd": sd}
    return [row(f"{name} ({shots})", "a", value) | same | {"shots": shots} for shots, value in accuracy.items()]


def test_numbers_of_shots_are_a_line_a_method_and_methods_without_are_level(tmp_path):
    rows = [row("clip", "a", 0.5) | {"sd": None}]
    rows += of_shots("tip", {4: 0.7, 1: 0.6, 16: 0.9}) + of_shots("dnd_tip", {1: 0.65, 4: 0.75, 16: 0.95}, None)
    for swept in ({"a": {}}, {}):
        plot_results(rows, tmp_path / "out.svg", swept, "birds")
        said = texts(tmp_path / "out.svg")
        assert {"tip", "dnd_tip", "clip", "shots a class", "top-1 accuracy, %", "1", "4", "16"} <= set(said)
        assert any("800 images" in text for text in said)
    drawn = (tmp_path / "out.svg").read_text(encoding="utf-8")
    assert drawn.count("fill-opacity: 0.13") == 2
    lines = [found for colour in ("#0072b2", "#d55e00", "#009e73") for found in paths_of(tmp_path / "out.svg", colour)]
    points = [[(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)] for line in lines]
    rising = [line for line in points if len(line) == 3]
    level = [line for line in points if len(line) == 2 and line[0][1] == line[1][1]]
    assert len(rising) == 2
    for line in rising:
        assert [x for x, _ in line] == sorted(x for x, _ in line), "shots grow to the right, whatever their order"
        assert [y for _, y in line] == sorted((y for _, y in line), reverse=True), "accuracy grows upwards"
    assert len(level) == 1
    assert level[0][0][1] > max(y for line in rising for _, y in line), "clip is below both"


def test_only_the_best_methods_without_shots_are_drawn_beside_those_with(tmp_path):
    rows = [row(f"zero {number}", "a", 0.1 * number) | {"sd": None} for number in (3, 1, 5, 2, 4)]
    plot_results(rows + of_shots("tip", {1: 0.6, 2: 0.7}), tmp_path / "out.svg", {"a": {}}, "")
    assert {text for text in texts(tmp_path / "out.svg") if text.startswith("zero")} == {"zero 5", "zero 4", "zero 3"}


def test_one_number_of_shots_is_a_row_of_dots_among_the_others(tmp_path):
    rows = [row("clip", "a", 0.5), *of_shots("tip", {4: 0.6})]
    plot_results(rows, tmp_path / "out.svg", {"a": {}}, "")
    said = texts(tmp_path / "out.svg")
    assert {"clip", "tip (4)", "ms an image"} <= set(said)
    assert "shots a class" not in said


@pytest.mark.parametrize("swept", [{"$a_b$": {"n": 1}, "x": {"n": 2}}, {"$a_b$": {}, "x": {}}])
def test_names_with_dollars_and_underscores_stay_as_they_are(tmp_path, swept):
    name = r"cost $x_1^2$ & \alpha <b>"
    rows = [row(name, job, 0.5 + 0.1 * place) for place, job in enumerate(swept)]
    plot_results(rows, tmp_path / "out.svg", swept, "$t_i$")
    said = texts(tmp_path / "out.svg")
    assert r"cost $x_1^2$ &amp; \alpha &lt;b&gt;" in said
    assert "$t_i$" in said


def test_every_format_is_written_and_the_picture_is_wide_enough_to_read(tmp_path):
    rows, swept = numbers("crops", [1, 4], {f"method {number}": 0.01 * number for number in range(12)})
    for suffix in (".png", ".svg", ".pdf"):
        plot_results(rows, tmp_path / f"out{suffix}", swept, "crops")
        assert (tmp_path / f"out{suffix}").stat().st_size > 5000
    assert Image.open(tmp_path / "out.png").size[0] >= 1000


def test_the_same_results_give_the_same_file(tmp_path):
    rows, swept = numbers("crops", [1, 4], {"dnd": 0.1})
    for name in ("one.svg", "two.svg"):
        plot_results(rows, tmp_path / name, swept, "crops")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_drawing_leaves_the_settings_of_matplotlib_alone_and_opens_no_window(tmp_path):
    code = (
        "import sys, matplotlib\n"
        "def settings():  # asking for the backend would choose one\n"
        "    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != 'backend'}\n"
        "before = settings()\n"
        "from pathlib import Path\n"
        "from pipeline.plot import plot_results\n"
        f"plot_results({[row('dnd', 'a', 0.5)]!r}, Path({str(tmp_path / 'out.png')!r}), {{'a': {{}}}}, '')\n"
        "print(before == settings(), 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_labels_are_a_gap_apart_in_the_order_of_their_lines_and_inside_where_there_is_room(places, gap):
    moved = spread_apart(places, gap)
    order = sorted(range(len(places)), key=lambda number: places[number])
    assert all(moved[after] - moved[before] >= gap - 1e-9 for before, after in pairwise(order))
    assert max(moved) <= 1 + 1e-9
    if gap * (len(places) - 1) <= 1:
        assert min(moved) >= -1e-9


def test_labels_that_are_apart_stay_where_their_lines_end():
    assert spread_apart([0.9, 0.1, 0.5], 0.1) == pytest.approx([0.9, 0.1, 0.5])


def test_labels_that_are_not_move_away_from_each_other_by_the_same():
    assert spread_apart([0.9, 0.5, 0.5], 0.1) == pytest.approx([0.9, 0.45, 0.55])
