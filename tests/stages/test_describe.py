"""describe: one row a class, and a changed entry is a new row of that class alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import lancedb
import pyarrow as pa
import pytest

from stages.describe import Describe
from stages.described import read_descriptors
from stages.descriptor_settings import DescribeSettings, FileDescriptors, NamesDescriptors
from stages.manifest import SCHEMA
from stages.methods import parse_method
from stages.stage import Inputs, Run
from storage import files

MARKS = {"blue jay": [" a crest ", "a collar"], "wren": ["a short tail"], "owl": ["unused"]}
UNUSED = DescribeSettings(), "ViT-B-16"
"""What only sets that are asked for read."""
CUPL = parse_method({"name": "cupl", "descriptors": "marks"})


@pytest.fixture
def described(tmp_path):
    """`described(**entries)` writes the file, computes what is missing, and returns the table and what was computed."""

    def compute(entries, classes=("wren", "blue jay")):
        path = tmp_path / "marks.json"
        path.write_text(json.dumps(entries))
        names = {f"{name} ({number})": name for number, name in enumerate(classes)}
        inputs = Inputs(str(tmp_path / "store"), SCHEMA.empty_table(), names, {})
        stage = Describe({"marks": FileDescriptors(path=str(path))}, [CUPL], *UNUSED)
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
    stage = Describe(
        {"a": settings, "b": settings},
        [parse_method({"name": "cupl", "descriptors": name}) for name in "ab"],
        *UNUSED,
    )
    stage.compute(stage.tables(inputs)[:1], inputs, Run("run", lambda done, rejected: None, lambda: None))
    assert [table.complete for table in stage.tables(inputs)] == [True, True]


def test_two_classes_of_one_name_share_their_descriptors(described):
    table, computed = described(MARKS, classes=("wren", "blue jay", "wren"))
    assert computed == 2
    assert list(read_descriptors(table)) == ["wren", "blue jay"]


@pytest.fixture
def plan_set(tmp_path):
    """`plan_set(settings, *classes)` -> the table of a set `marks` that cupl reads, or that no method does."""

    def plan(settings, *classes, read=True):
        inputs = Inputs(str(tmp_path / "store"), SCHEMA.empty_table(), {name: name for name in classes}, {})
        stage = Describe({"marks": settings}, [CUPL] if read else [parse_method("clip")], *UNUSED)
        return stage, stage.tables(inputs)[0], inputs

    return plan


@pytest.fixture
def compute_set(plan_set):
    """The same, computed: the table as it is then, and what was told."""

    def compute(settings, *classes):
        stage, table, inputs = plan_set(settings, *classes)
        told = []
        stage.compute([table], inputs, Run("run", lambda done, rejected: None, lambda: None, tell=told.append))
        return stage.tables(inputs)[0], told

    return compute


def test_a_set_of_names_says_its_templates_of_each_class_and_a_new_class_is_one_row(plan_set, compute_set):
    table, told = compute_set(NamesDescriptors(templates="imagenet_7"), "wren", "blue_jay")
    assert (table.complete, told) == (True, [])
    assert read_descriptors(table)["blue_jay"][:2] == ["itap of a blue jay.", "a bad photo of the blue jay."]
    row = table.keeper.read().to_pylist()[0]
    assert (row["source"], row["aspects"], len(row["texts"])) == ("templates imagenet_7", None, 7)
    _, grown, _ = plan_set(NamesDescriptors(templates="imagenet_7"), "wren", "blue_jay", "owl")
    assert [key.partition("@")[0] for key in grown.missing.to_pylist()] == ["owl"]


def test_a_set_that_no_method_reads_wants_no_more_than_is_there_and_says_so(plan_set, compute_set):
    _, table, _ = plan_set(NamesDescriptors(), "wren", read=False)
    assert (len(table.wanted), table.complete, read_descriptors(table)) == (0, True, {})
    assert table.notes == ("no method reads it, so nothing is described for it",)
    compute_set(NamesDescriptors(), "wren")
    _, kept, _ = plan_set(NamesDescriptors(), "wren", "owl", read=False)
    assert (len(kept.wanted), kept.complete, list(read_descriptors(kept))) == (1, True, ["wren"])


def test_classes_of_the_file_that_the_data_set_lacks_are_told_once_when_it_is_read_and_always_in_the_plan(
    plan_set, compute_set, tmp_path
):
    path = tmp_path / "marks.csv"
    path.write_text("class,text\nwren,small\nowl,large\n")
    (tmp_path / "names.json").write_text('{"Troglodytes": "wren"}')
    settings = FileDescriptors(path=str(path), aliases=str(tmp_path / "names.json"))
    table, told = compute_set(settings, "Troglodytes")
    note = f"{path} also describes 1 class that the data set does not have: 'owl'"
    assert (table.notes, told) == ((note,), [f"descriptors.marks: {note}"])
    assert read_descriptors(table) == {"Troglodytes": ["small"]}


def test_a_lance_table_is_read_by_its_folder_or_by_its_name_in_a_database(plan_set, tmp_path):
    rows = pa.table({"class": ["wren", "owl", "wren"], "descriptor": ["small", "large", "brown"], "vector": [0.0] * 3})
    database = lancedb.connect(tmp_path / "birds")
    database.create_table("marks", rows)
    folder = FileDescriptors(path=str(tmp_path / "birds/marks.lance"))
    named = FileDescriptors(path=str(tmp_path / "birds"), table="marks")
    for settings in (folder, named):
        assert plan_set(settings, "owl", "wren")[1].plan.texts == {"owl": ["large"], "wren": ["small", "brown"]}
    database.open_table("marks").add(pa.table({"class": ["owl"], "descriptor": ["grey"], "vector": [0.0]}))
    assert plan_set(named, "owl")[1].plan.texts == {"owl": ["large", "grey"]}
    database.create_table("other", pa.table({"name": ["wren"]}))
    for settings, message in (
        (
            FileDescriptors(path=str(tmp_path / "birds")),
            "is a LanceDB database; say which `table`; there are marks, other",
        ),
        (FileDescriptors(path=str(tmp_path / "birds"), table="mraks"), "has no table 'mraks'; there are marks, other"),
        (
            FileDescriptors(path=str(tmp_path / "birds/other.lance")),
            "other.lance: has the columns name; a row has `class`",
        ),
        (FileDescriptors(path=str(tmp_path / "none.lance")), "none.lance: is no folder of a LanceDB table"),
        (FileDescriptors(path=str(tmp_path / "marks.json"), table="marks"), "nor of a database with `table` in it"),
    ):
        with pytest.raises(ValueError, match=rf"^descriptors\.marks: .*{re.escape(message)}"):
            plan_set(settings, "wren")


def test_a_lance_table_that_was_read_once_is_planned_without_lancedb(plan_set, tmp_path):
    lancedb.connect(tmp_path).create_table("marks", pa.table({"class": ["wren"], "text": ["small"]}))
    plan_set(FileDescriptors(path=str(tmp_path / "marks.lance")), "wren")
    code = (
        "import sys\n"
        "from stages.describe import Describe\n"
        "from stages.descriptor_settings import DescribeSettings, FileDescriptors\n"
        "from stages.manifest import SCHEMA\n"
        "from stages.stage import Inputs\n"
        f"inputs = Inputs({str(tmp_path / 'store')!r}, SCHEMA.empty_table(), {{'wren': 'wren'}}, {{}})\n"
        f"settings = FileDescriptors(path={str(tmp_path / 'marks.lance')!r})\n"
        "stage = Describe({'marks': settings}, [], DescribeSettings(), '')\n"
        "print(stage.tables(inputs)[0].plan.texts, 'lancedb' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "{'wren': ['small']} False"


def test_a_descriptor_file_in_a_bucket_is_read_there_and_a_missing_one_is_told(plan_set, bucket):
    files.write_atomic(f"{bucket}/marks.jsonl", b'{"class": "wren", "text": "small"}', run="test")
    assert plan_set(FileDescriptors(path=f"{bucket}/marks.jsonl"), "wren")[1].plan.texts == {"wren": ["small"]}
    with pytest.raises(ValueError, match=rf"descriptors\.marks: {bucket}/none\.json: cannot be read"):
        plan_set(FileDescriptors(path=f"{bucket}/none.json"), "wren")
