"""What `benchmarks.adaptation` makes of small measurements."""

from __future__ import annotations

from benchmarks.adaptation import search_speedup, tda_speedup


def test_both_figures_are_ratios_of_sides_that_agree():
    assert search_speedup(images=40, classes=5) > 0
    assert tda_speedup(count=300, classes=20, loop=60) > 0
