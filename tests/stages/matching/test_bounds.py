"""Compiled loops look at no bounds: here every array has a page before and after it that kills who touches it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

GUARD = """
import ctypes, itertools, mmap
import numpy as np

libc, maps = ctypes.CDLL(None, use_errno=True), []

def guarded(*shape):
    # The array ends where the last page begins.
    length = int(np.prod(shape)) * 4
    pages = -(-length // mmap.PAGESIZE)
    maps.append(mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE))
    start = ctypes.addressof(ctypes.c_char.from_buffer(maps[-1]))
    for page in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(start + page * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    return np.frombuffer(maps[-1], np.float32, length // 4, (pages + 1) * mmap.PAGESIZE - length).reshape(shape)

def filled(shape, value):
    array = guarded(*shape)
    array[:] = value
    return array
"""

SINKHORN = """
from stages.matching.scaling import groups, scaled_plans, scaled_scores, scratch_length

rng = np.random.default_rng(0)
for problems, rows, columns in itertools.product((1, 15, 16, 17, 33), (1, 3, 4, 5), (1, 4, 9, 17)):
    for side_by_side in (False, True):
        shape = (rows, columns, problems) if side_by_side else (problems, rows, columns)
        values, plans = (filled(shape, rng.random(shape)) for _ in range(2))
        if not side_by_side:
            values, plans = values.transpose(1, 2, 0), plans.transpose(1, 2, 0)
        values, plans = values[None], plans[None]
        a, b = (filled((problems, size), 1 / size).T[None] for size in (rows, columns))
        scratch = filled((scratch_length(rows, columns),), 0)
        ranges, scores = guarded(1, problems), guarded(1, problems)
        scaled_plans(values, a, b, -10.0, 5, 0, groups(1, problems), scratch, plans, ranges)
        scaled_scores(values, a, b, 10.0, 5, 0, groups(1, problems), scratch, scores, ranges)
        assert np.allclose(plans.sum((1, 2)), 1, atol=1e-5)
"""

SOFT = """
from stages.matching.lanes import WIDTH
from stages.matching.soft_pass import add_votes, read_block

rng = np.random.default_rng(0)
for rows, classes, texts in itertools.product((1, 3), (1, 2, 5), (1, 15, 16, 17, 50)):
    buffer = filled((rows * classes * texts + WIDTH,), np.nan)
    similarity = buffer[: rows * classes * texts].reshape(rows, -1)
    similarity[:] = rng.random(similarity.shape)
    prior = filled((classes, texts + -texts % WIDTH), -np.inf)
    prior[:, :texts] = 0
    numerators, largest, mass, logits = guarded(rows, classes), guarded(1, rows), guarded(1, rows), guarded(1, classes)
    read_block(similarity, prior, texts, 0.0, numerators, largest[0], mass[0])
    add_votes(numerators, largest, mass, classes, logits)
    share = np.exp(similarity.astype(float))
    votes = share / share.sum(1, keepdims=True) * similarity
    assert np.allclose(logits[0], votes.reshape(rows, classes, texts).sum((0, 2)), atol=1e-4)
"""

TOUCH = "array = guarded(5)\nctypes.string_at(array.ctypes.data + array.nbytes, 1)\n"


def run(program: str) -> subprocess.CompletedProcess:
    # No clean-up at the end: arrays still lie in the maps. No core file either, where a crash is what is expected.
    quiet = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    end = "\nprint('done', flush=True)\nimport os; os._exit(0)\n"
    return subprocess.run(
        [sys.executable, "-c", quiet + GUARD + program + end],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pages are guarded by mprotect")
@pytest.mark.parametrize("program", [SINKHORN, SOFT], ids=["sinkhorn", "soft"])
def test_no_kernel_touches_what_lies_outside_its_arrays(program):
    done = run(program)
    assert done.stdout == "done\n", f"ended with {done.returncode}: {done.stderr}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pages are guarded by mprotect")
def test_the_guard_catches_a_single_byte_too_far():
    assert run(TOUCH).returncode < 0
