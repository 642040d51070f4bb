"""Tables for people: names are shown as they are, whatever signs they hold, and long lists are cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.show import show_hits, show_predictions, show_rejects, show_results

ODD = "[red]owl[/red] 'x' #1"


@pytest.fixture
def printed():
    """`printed(show, *arguments)` -> what stands on a terminal 160 columns wide."""

    def call(show, *arguments) -> str:
        console = Console(file=io.StringIO(), width=160)
        show(console, *arguments)
        return console.file.getvalue()

    return call


def test_rejects_are_counted_and_the_first_five_named(printed):
    rows = [{"uri": f"{ODD}{number}.png", "reason": "the file is empty"} for number in range(7)]
    text = printed(show_rejects, rows)
    assert "7 images rejected" in text
    assert f"{ODD}0.png: the file is empty" in text
    assert "and 2 more" in text
    assert printed(show_rejects, []) == ""
    assert "1 image rejected" in printed(show_rejects, rows[:1])


def test_results_stand_side_by_side_with_gaps_where_a_job_lacks_a_method(printed):
    row = {
        "accuracy": 0.715, "low": 0.7, "high": 0.73, "sd": None, "mean_per_class": 0.7,
        "seconds_per_image": 0.0123, "seeds": [0], "images": 1200, "classes": 32,
    }  # fmt: skip
    text = printed(
        show_results,
        [
            row | {"method": ODD, "job": "a"},
            row | {"method": "abs", "job": "a", "sd": 0.01, "seeds": [0, 1]},
            row | {"method": "abs", "job": "b"},
        ],
    )
    assert ODD in text
    assert "71.5 ± 1.0" in text
    assert "70.0 - 73.0" in text
    assert "12.3" in text
    assert "a: 1,200 images, 32 classes, chance 3.1 %" in text


def test_hits_and_predictions_show_names_as_they_are(printed):
    hit = {"similarity": 0.51234, "image": f"{ODD}.png", "class": ODD, "split": "query", "box": [1, 2, 3, 4]}
    assert f"{ODD}.png" in printed(show_hits, [hit])
    assert "0.512" in printed(show_hits, [hit])
    assert "no rows fit" in printed(show_hits, [])
    best = [{"class": ODD, "probability": 0.9}, {"class": "wren", "probability": 0.1}]
    row = {"image": ODD, "method": "abs", "class": ODD, "probability": 0.9, "top": best}
    text = printed(show_predictions, [row])
    assert text.count(ODD) == 2
    assert "wren 0.10" in text
