"""What `python -m benchmarks.describe` measures of asking, on few classes."""

from __future__ import annotations

import pytest

from benchmarks.describe_latency import latency_ratio


def test_the_latency_ratio_is_of_answers_that_are_all_stored_and_long_enough(capsys):
    assert latency_ratio(classes=6, descriptors=4, latency=0.02, at_once=3) >= 1
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        latency_ratio(classes=1, at_once=0)
