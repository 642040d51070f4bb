"""describe: one row a class, and a changed entry is a new row of that class alone."""

from __future__ import annotations

import json

import pytest

from stages.describe import Describe, read_descriptors
from stages.manifest import SCHEMA
from stages.settings import FileDescriptors
from stages.stage import Inputs, Run

MARKS = {"blue jay": [" a crest ", "a collar"], "wren": ["a short tail"], "owl": ["unused"]}


@pytest.fixture
def described(tmp_path):
    """`described(**entries)` writes the file, computes what is missing, and returns the table and what was computed."""

    def compute(entries, classes=("wren", "blue jay")):
        path = tmp_path / "marks.json"
        path.write_text(json.dumps(entries))
        names = {f"{name} ({number})": name for number, name in enumerate(classes)}
        inputs = Inputs(str(tmp_path / "store"), SCHEMA.empty_table(), names, {})
        stage = Describe({"marks": FileDescriptors(path=str(path))})
        counted = []
        tables = stage.tables(inputs)
        stage.compute(
            [table for table in tables if table.missing],
            inputs,
            Run("run", lambda done, rejected: counted.append(done), lambda: None),
        )
        return stage.tables(inputs)[0], sum(counted)

    return compute


def test_every_class_of_the_data_set_gets_its_own_descriptors_in_order(described):
    table, computed = described(MARKS)
    assert (table.name, computed, table.complete) == ("descriptors.marks", 2, True)
    assert read_descriptors(table) == {"wren": ["a short tail"], "blue jay": ["a crest", "a collar"]}


def test_only_the_class_whose_entry_changed_is_computed_again(described):
    described(MARKS)
    table, computed = described(MARKS | {"wren": ["a cocked tail"]})
    assert computed == 1
    assert read_descriptors(table)["wren"] == ["a cocked tail"]
    table, computed = described(MARKS)
    assert (computed, read_descriptors(table)["wren"]) == (0, ["a short tail"])


def test_another_order_of_classes_or_a_class_of_no_image_computes_nothing(described):
    described(MARKS)
    table, computed = described(dict(reversed(MARKS.items())) | {"robin": ["x"]}, classes=("blue jay", "wren"))
    assert computed == 0
    assert list(read_descriptors(table)) == ["blue jay", "wren"]


def test_a_class_without_descriptors_is_told_with_set_and_file(described):
    with pytest.raises(ValueError, match=r"descriptors\.marks: .*marks\.json: .*'wern' \(similar: 'wren'\)"):
        described(MARKS, classes=("wern",))


def test_two_sets_that_say_the_same_share_their_rows(tmp_path):
    path = tmp_path / "marks.json"
    path.write_text(json.dumps(MARKS))
    inputs = Inputs(str(tmp_path / "store"), SCHEMA.empty_table(), {"wren": "wren"}, {})
    settings = FileDescriptors(path=str(path))
    stage = Describe({"a": settings, "b": settings})
    stage.compute(stage.tables(inputs)[:1], inputs, Run("run", lambda done, rejected: None, lambda: None))
    assert [table.complete for table in stage.tables(inputs)] == [True, True]


def test_two_classes_of_one_name_share_their_descriptors(described):
    table, computed = described(MARKS, classes=("wren", "blue jay", "wren"))
    assert computed == 2
    assert list(read_descriptors(table)) == ["wren", "blue jay"]
