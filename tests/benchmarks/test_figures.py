"""What the benchmarks make of their measurements."""

from __future__ import annotations

import os

import numpy as np
import PIL.Image
import pytest

from benchmarks.growth import proportional_bytes
from benchmarks.photos import write_mixed_photos, write_photos
from benchmarks.stage import Clock
from pipeline.run import StageResult


def test_steady_state_begins_when_every_actor_has_done_a_batch():
    clock = Clock()
    # Two actors: models load for 9 s, then each takes 2 s for a batch of 4, the second half a second behind.
    clock.events = [(11.0, 4), (11.5, 4), (13.0, 4), (13.5, 4), (15.0, 4), (15.5, 4)]
    assert clock.seconds_an_image(actors=2) == pytest.approx(4.0 / 16)


def test_phases_are_those_of_encode_images():
    clock = Clock()
    clock.stage_ended("describe", StageResult("describe", 1, 0, 0, 1.0))
    clock.stage_ended("encode_images", StageResult("encode_images", 1, 0, 0, 1.0, {"encode": 3.0}))
    assert clock.phases() == {"encode": 3.0}


def test_memory_is_counted_with_what_was_touched_and_no_process_has_none():
    before = proportional_bytes(os.getpid())
    held = np.ones(50_000_000, np.uint8)
    assert proportional_bytes(os.getpid()) - before > 0.8 * held.nbytes
    assert proportional_bytes(2**22 + 1) == 0


def test_photographs_have_the_sizes_that_the_figures_speak_of(tmp_path):
    for path in write_photos(tmp_path / "plain", 2).iterdir():
        assert PIL.Image.open(path).size == (500, 375)
    mixed = write_mixed_photos(tmp_path / "mixed", count=30, distinct=20)
    sizes = {PIL.Image.open(path).size for path in mixed.iterdir()}
    assert (3000, 2000) in sizes
    assert len(sizes) > 10
