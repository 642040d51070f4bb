"""Descriptor files that are rows: JSON lines, delimited text, Arrow and Parquet, with their line or row in errors."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prompts.descriptor_file import read_descriptor_file

MARKS = {"wren": ["a short tail", "brown, with bars"], "blue jay": ["a crest"]}
PAIRS = [(name, text) for name, texts in MARKS.items() for text in texts]
NAMES, TEXTS = zip(*PAIRS, strict=True)


@pytest.fixture
def read(tmp_path):
    """`read(name, text)` -> what a file of this name and text says."""

    def read_text(name: str, text: str):
        (tmp_path / name).write_bytes(text.encode())
        return read_descriptor_file(tmp_path / name)

    return read_text


def test_json_lines_hold_one_descriptor_each_or_all_of_a_class(read):
    one_each = (
        '{"class": "wren", "text": " a short tail"}\n\n{"class": "wren", "descriptor": "brown, with bars", "n": 1}\n'
    )
    assert read("marks.jsonl", one_each + '{"class": "blue jay", "texts": ["a crest "]}') == MARKS
    assert list(read("marks.ndjson", '{"class": "b", "descriptors": ["x"]}\r\n{"class": "a", "text": "y"}\r\n')) == [
        "b",
        "a",
    ]


def test_delimited_text_has_a_header_and_a_descriptor_a_row_in_order_whatever_else_stands_there(read):
    rows = 'text,class,verdict\na short tail,wren,\n"brown, with bars",wren,keep\n\na crest,blue jay,\n'
    assert read("marks.csv", "\ufeff" + rows) == MARKS
    assert (
        read("marks.tsv", "class\tdescriptor\nwren\ta short tail\nwren\tbrown, with bars\nblue jay\ta crest\n") == MARKS
    )


def test_arrow_and_parquet_hold_a_text_a_row_or_a_list_with_other_columns_beside_them(tmp_path):
    rows = pa.table({"auc": [0.5] * 3, "text": TEXTS, "class": pa.array(NAMES).dictionary_encode()})
    lists = pa.table({"class": list(MARKS), "descriptors": list(MARKS.values())})
    for number, table in enumerate((rows, lists)):
        places = [tmp_path / f"marks{number}{suffix}" for suffix in (".parquet", ".arrow", ".feather")]
        pq.write_table(table, places[0])
        with pa.ipc.new_file(places[1], table.schema) as writer:
            writer.write_table(table)
        with pa.ipc.new_stream(places[2], table.schema) as writer:
            writer.write_table(table)
        assert [read_descriptor_file(place) for place in places] == [MARKS] * 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.jsonl",
            '{"class": "a", "text": "x"}\n["b"]',
            r"a\.jsonl, line 2: is a list, not an object; a row has `class`",
        ),
        ("a.jsonl", '{"class": "a"', r"a\.jsonl, line 1: is no JSON"),
        (
            "a.jsonl",
            '{"class": "a", "tetx": "x"}',
            r"line 1: has class, tetx; a row has `class` and one of `descriptor`",
        ),
        ("a.jsonl", '{"class": "a", "text": "x", "texts": ["x"]}', r"line 1: has class, text, texts; a row has"),
        ("a.jsonl", '{"class": 404, "text": "x"}', r"line 1: `class` is int 404; a string is needed"),
        ("a.jsonl", '{"class": "a", "text": ["x"]}', r"line 1: `text` is a list; a string is needed"),
        (
            "a.jsonl",
            '{"class": "a", "texts": "x"}',
            r"line 1: `texts` is a string; a list is needed, or one text under",
        ),
        ("a.jsonl", '{"class": "a", "texts": []}', r"line 1: `texts` is an empty list"),
        ("a.jsonl", '{"class": "a", "texts": ["x", " "]}', r"line 1: `texts\[1\]` is blank"),
        (
            "a.jsonl",
            '{"class": "a", "texts": ["x"]}\n{"class": "a", "text": "y"}',
            r"line 2: class 'a' stands there twice \(line 1 has all of its texts\)",
        ),
        (
            "a.jsonl",
            '{"class": "a", "text": "x"}\n{"class": "a", "texts": ["y"]}',
            r"line 2: class 'a' stands there twice",
        ),
        ("a.jsonl", "\n", r"a\.jsonl: has no classes"),
        (
            "a.csv",
            "class,text\nwren,brown, with bars\n",
            r"a\.csv, line 2: has another number of fields .* double quotes",
        ),
        ("a.csv", "name,text\nwren,brown\n", r"a\.csv, line 2: has name, text; a row has `class`"),
        ("a.csv", "class,text\nwren,\n", r"line 2: `text` is blank"),
        ("a.csv", 'class,text\nwren,"brown" bars\n', r"a\.csv, line 2: .*expected after"),
        ("a.csv", "class,text\n", r"a\.csv: has no classes"),
        ("a.csv", "class,texts\nwren,brown\n", r"line 2: `texts` is a string; a list is needed"),
        ("a.parquet", "no", r"a\.parquet: is no Parquet file"),
        ("a.arrow", "no", r"a\.arrow: is no Arrow IPC file"),
    ],
)
def test_a_wrong_row_is_told_with_its_file_and_place_and_what_would_be_right(read, name, text, message):
    with pytest.raises(ValueError, match=message):
        read(name, text)


def test_a_wrong_table_is_told_with_its_columns_or_row(tmp_path):
    place = tmp_path / "a.parquet"
    for table, message in (
        ({"class": ["a"], "words": ["x"]}, r"a\.parquet: has the columns class, words; a row has `class` and one of"),
        ({"class": ["a", "b"], "text": ["x", None]}, r"a\.parquet, row 2: `text` is nothing; a string is needed"),
        ({"class": [4], "text": ["x"]}, r"row 1: `class` is int 4"),
    ):
        pq.write_table(pa.table(table), place)
        with pytest.raises(ValueError, match=message):
            read_descriptor_file(place)
