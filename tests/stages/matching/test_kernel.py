"""Kernels stay on disk while what they are made of is the same, and work where nothing can be written."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import caching

from stages.matching import kernel as kernels

ROOT = Path(kernels.__file__).parents[2]
DOUBLING = """
import numba
from stages.matching.kernel import kernel

@kernel(numba.float32[::1])
def double(numbers):
    for at in range(len(numbers)):
        numbers[at] *= 2
"""


@pytest.fixture
def double(tmp_path, monkeypatch):
    """A kernel as a new process finds it: from disk, where it is still there."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "doubling.py"
    file.write_text(DOUBLING)

    def load():
        spec = importlib.util.spec_from_file_location("doubling", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.double

    return load


def found_on_disk(made) -> bool:
    return sum(made.stats.cache_hits.values()) == 1


def doubles(made) -> bool:
    numbers = np.ones(3, np.float32)
    made(numbers)
    return numbers.tolist() == [2, 2, 2]


def test_a_kernel_is_compiled_once_and_anew_when_its_instructions_change(double, tmp_path, monkeypatch):
    assert {Path(file).name for file in kernels._INSTRUCTIONS} == {"lanes.py", "exponential.py"}
    instructions = tmp_path / "lanes.py"
    instructions.write_text("one way")
    monkeypatch.setattr(kernels, "_INSTRUCTIONS", (str(instructions),))
    assert not found_on_disk(double())
    assert found_on_disk(double())
    instructions.write_text("another")
    again = double()
    assert not found_on_disk(again)
    assert doubles(again)
    assert found_on_disk(double())


def test_where_no_place_can_be_written_to_a_kernel_is_compiled_all_the_same(double, monkeypatch):
    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", _refuse)
    with pytest.raises(RuntimeError, match="no locator available"):
        caching.FunctionCache(doubles)
    assert doubles(double())


def test_a_disk_that_fills_up_after_all_is_no_error_either(double, monkeypatch):
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", _refuse)
    made = double()
    assert doubles(made)
    assert not found_on_disk(made)


def _refuse(*_):
    raise OSError("read-only file system")


def test_scores_are_computed_in_a_process_that_may_write_nowhere():
    program = (
        "from numba.core import caching\n"
        "def refuse(self): raise OSError('read-only file system')\n"
        "caching._CacheLocator.ensure_cache_path = refuse\n"
        "import torch\n"
        "from stages.matching.soft import soft_match\n"
        "rows = torch.eye(3).unsqueeze(0)\n"
        "print(soft_match(rows, rows, torch.ones(1, 3, dtype=torch.bool), temperature=0.01).item())\n"
    )
    hurried = {**os.environ, "NUMBA_OPT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=hurried, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(300.0, abs=1e-3)
