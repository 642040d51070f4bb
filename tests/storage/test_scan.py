"""Shards as a stream: a row a key, the columns that are asked for, half floats as they are or cast."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from storage.scan import as_single, scan_shards
from storage.schemas import fixed_list
from storage.shards import ShardTable


def rows(*keys: str) -> pa.Table:
    numbers = np.array([[ord(key), -ord(key)] for key in keys], np.float16)
    return pa.table({"key": list(keys), "vector": fixed_list(numbers), "norm": numbers[:, 0].astype(np.float32)})


@pytest.fixture
def table(tmp_path) -> ShardTable:
    table = ShardTable(str(tmp_path / "table"))
    for keys in (("c", "a"), ("b", "a"), ("d",), ("d", "a")):
        table.append(rows(*keys), "run")
    return table


def test_a_key_that_several_shards_hold_is_one_row(table):
    scanned = scan_shards(table.folder)
    batches = list(scanned)
    assert len(batches) > 1, "shard by shard"
    found = pa.Table.from_batches(batches)
    assert sorted(found["key"].to_pylist()) == ["a", "b", "c", "d"]
    assert found.equals(table.read())


def test_columns_come_in_the_order_asked_and_half_floats_are_cast_exactly(table):
    found = scan_shards(table.folder, ["vector", "key"], single=True).read_all()
    stored = table.read(columns=["vector", "key"])
    assert found.column_names == ["vector", "key"]
    assert found.schema == as_single(stored.schema)
    assert found["vector"].to_pylist() == stored["vector"].to_pylist()
    assert found["vector"].type == pa.list_(pa.float32(), 2)


def test_what_is_not_there_is_told_before_anything_is_read(table, tmp_path):
    with pytest.raises(KeyError, match=r"no columns \['norms'\]; it has \['key', 'vector', 'norm'\]"):
        scan_shards(table.folder, ["norms"])
    with pytest.raises(LookupError, match="has no rows"):
        scan_shards(str(tmp_path / "empty"))
