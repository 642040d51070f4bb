"""What two stores of one job must agree in, however they came to be: keys, boxes, features, predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from storage.schemas import to_numpy

SAME_MARGIN = 1e-4
"""Two classes whose logits lie closer than this may change places."""


def feature_rows(job: Path) -> dict[str, dict[str, np.ndarray]]:
    """Table of encode_images -> column -> array, in the order of the wanted keys; all of them are there."""
    found = {}
    for table in make_plan(load_job(job)).of("encode_images").tables:
        assert table.complete, table.name
        stored = table.keeper.read(table.wanted)
        columns = [name for name in stored.column_names if name.endswith(("boxes", "windows", "vectors", "norms"))]
        found[table.name] = {name: to_numpy(stored[name], (-1,)) for name in columns}
    return found


def predictions(job: Path) -> dict[str, list[dict]]:
    """Table of score -> its rows, in the order of the wanted keys."""
    tables = make_plan(load_job(job)).of("score").tables
    return {table.name: table.keeper.read(table.wanted).to_pylist() for table in tables}


def assert_same_features(one: dict[str, dict[str, np.ndarray]], other: dict[str, dict[str, np.ndarray]]) -> None:
    """Boxes equal, unit vectors within one step of fp16 (of a 64th, for smaller numbers), norms to 1e-4."""
    assert one.keys() == other.keys()
    for table, columns in one.items():
        for name, values in columns.items():
            if values.dtype == np.float16:
                step = np.maximum(np.spacing(np.abs(values)), np.spacing(np.float16(2**-6))).astype(np.float32)
                difference = np.abs(values.astype(np.float32) - other[table][name].astype(np.float32))
                assert (difference <= step).all(), (table, name, difference.max())
            elif values.dtype == np.int32:
                np.testing.assert_array_equal(values, other[table][name])
            else:
                np.testing.assert_allclose(values, other[table][name], rtol=1e-4)


def assert_same_predictions(one: dict[str, list[dict]], other: dict[str, list[dict]]) -> None:
    """The same class for every image, unless two were as good as equal; logits to 1e-3."""
    assert one.keys() == other.keys()
    for table, expected in one.items():
        for row, found in zip(expected, other[table], strict=True):
            assert row["key"] == found["key"]
            assert row["classes"][0] == found["classes"][0] or row["margin"] < SAME_MARGIN, table
            assert found["logits"] == pytest.approx(row["logits"], rel=1e-3, abs=1e-3)


def projected(job: Path) -> dict[str, list[str]]:
    """LanceDB table -> its ids, sorted, each once."""
    from storage.lance import Projection

    (table,) = make_plan(load_job(job)).of("project").tables
    assert table.complete
    database = Projection(table.keeper.uri)
    found = {name: database.ids(name) for name in database.tables()}
    for name, ids in found.items():
        assert pc.count_distinct(ids).as_py() == len(ids), name
    return {name: sorted(pa.chunked_array(ids).to_pylist()) for name, ids in found.items()}


def assert_same_state(one: Path, other: Path) -> None:
    """Two jobs, run to the end, whose stores hold the same."""
    assert_same_features(feature_rows(one), feature_rows(other))
    assert_same_predictions(predictions(one), predictions(other))
    assert projected(one) == projected(other)
