"""What `python -m benchmarks.match` makes of small measurements."""

from __future__ import annotations

import pytest

from benchmarks import match


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(match, "SECONDS_A_TURN", 0.0)
    monkeypatch.setattr(match, "CROPS", 12)
    monkeypatch.setattr(match, "DIM", 32)


def test_sinkhorn_has_a_figure_for_every_size_and_the_range_it_came_from():
    ranges = {}
    figures = match.sinkhorn(ranges, sizes={"3x2": (3, 2)}, problems=(40, 130), turns=2)
    assert list(figures) == ["3x2"]
    assert set(figures["3x2"]) == {"vs_pot_batch", "vs_pot_plain", "vs_loop", "plan_error"}
    assert figures["3x2"].pop("plan_error") < 1e-5
    for name, value in figures["3x2"].items():
        low, high = ranges[f"sinkhorn 3x2 {name}"]
        assert 0 < low <= value <= high


def test_soft_matching_has_its_three_figures():
    ranges = {}
    figures = match.soft(ranges, classes=20, turns=1)
    assert set(figures) == {"vs_product", "memory_ratio", "relative_error"}
    assert 0 <= figures["relative_error"] < 1e-4
    assert ranges["soft_matching vs_product"] == [figures["vs_product"]] * 2


def test_the_dense_formula_needs_the_memory_of_its_similarities():
    # At the sizes of this test's process of its own: 120 crops, 50 texts, d = 512.
    similarities = 120 * 200 * 50 * 4
    assert 1.5 * similarities < match.peak_bytes("dense", classes=200) < 4 * similarities
    assert match.peak_bytes("ours", classes=200) < similarities


def test_the_worse_of_the_counts_of_problems_is_kept(monkeypatch):
    ratios = {40: [8.0, 9.0, 7.0], 130: [6.0, 5.0, 20.0]}
    monkeypatch.setattr(match, "_against_pot", lambda cost, a, b, turns: {"vs_loop": ratios.get(len(cost), [])})
    ranges = {}
    figures = match.sinkhorn(ranges, sizes={"3x2": (3, 2)}, problems=(40, 130), turns=3)
    assert figures["3x2"]["vs_loop"] == 6.0
    assert ranges["sinkhorn 3x2 vs_loop"] == [5.0, 20.0]
