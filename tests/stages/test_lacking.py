"""Rows on their way to the workers: each with the tables that lack it, made a few at a time."""

from __future__ import annotations

import pyarrow as pa

import stages.lacking
from stages.lacking import LackingRows
from stages.stage import Ingredients, Table, lacking_keys
from storage.shards import ShardTable


def tables_with(folder, wanted: list[str], **present: list[str]) -> list[Table]:
    tables = []
    for name, keys in present.items():
        keeper = ShardTable(str(folder / name))
        keeper.append(pa.table({"key": pa.array(keys, pa.string())}), "run")
        tables.append(Table("stage", name, Ingredients({}, 1), wanted, keeper))
    return tables


def test_every_row_comes_with_the_tables_that_lack_it_in_the_order_given(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.lacking, "AT_ONCE", 2)
    tables = tables_with(tmp_path, list("abcde"), one=["a", "b"], two=["b", "e"], three=["a", "b"])
    rows = LackingRows(pa.table({"key": list("acde"), "uri": list("ACDE")}), tables)
    assert len(rows) == 4
    expected = [
        {"key": "a", "uri": "A", "lacks": ["two"]},
        {"key": "c", "uri": "C", "lacks": ["one", "two", "three"]},
        {"key": "d", "uri": "D", "lacks": ["one", "two", "three"]},
        {"key": "e", "uri": "E", "lacks": ["one", "three"]},
    ]
    assert list(rows) == expected
    assert list(rows) == expected, "and may be gone through again"


def test_the_keys_that_any_table_lacks_come_once(tmp_path):
    tables = tables_with(tmp_path, list("abcd"), one=["a", "b"], two=["b", "d"])
    assert lacking_keys(tables).to_pylist() == ["c", "d", "a"]
    assert lacking_keys(tables[:1]) is tables[0].missing
    assert lacking_keys([]).to_pylist() == []
