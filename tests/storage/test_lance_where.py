"""Conditions that people type: what they find in a real table, and what they are refused for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import lance_where
from storage.lance import Projection
from storage.lance_filter import both, where_equal
from storage.lance_where import parse_where
from storage.schemas import cache_schema, fixed_list

SCHEMA = cache_schema(2)
NAMES = [
    "O'Brien's finch",
    "'; DROP TABLE cache; --",
    'say "jay"',
    "a\\'b",
    "100%_`ü`\n",
    "''",
    "",
    "Zaunkönig 鷦鷯",
    "\\",
]
SIMILARITIES = [0.1 * number for number in range(len(NAMES) + 1)]


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Projection:
    """A row a name, numbered, and a last one without a class; shot is the number, the similarity a tenth of it."""
    count = len(NAMES) + 1
    numbers = pa.array(range(count), pa.int32())
    columns = {name: pa.array(["x"] * count) for name in ("image", "set", "text", "view", "method")}
    columns |= dict.fromkeys(("descriptor", "shot", "seed", "number"), numbers)
    columns["descriptor_similarity"] = pa.array(SIMILARITIES, pa.float32())
    columns |= {"id": numbers.cast(pa.string()), "class": pa.array([*NAMES, None])}
    columns |= {"box": fixed_list(np.zeros((count, 4), np.int32))}
    columns |= {"vector": fixed_list(np.ones((count, 2), np.float16))}
    made = Projection(str(tmp_path_factory.mktemp("where") / "lance"))
    made.upsert("cache", SCHEMA, pa.table(columns))
    return made


def found(database: Projection, where) -> list[int]:
    return sorted(hit["number"] for hit in database.search("cache", [1, 1], k=100, where=where))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("number = 3", [3]),
        ("number != 3 and number <= 4", [0, 1, 2, 4]),
        ("number <> 3 AND number < 4", [0, 1, 2]),
        ("number >= 8", [8, 9]),
        ("number > -1 AND number < +2", [0, 1]),
        ("descriptor_similarity > .35 AND descriptor_similarity < 5.5e-1", [4, 5]),
        ("number IN (1, 4, 77)", [1, 4]),
        ("number not in (1, 4) and number between 0 and 5", [0, 2, 3, 5]),
        ("NOT number BETWEEN 2 AND 9", [0, 1]),
        ("number NOT BETWEEN 2 AND 9", [0, 1]),
        ("class IS NULL", [9]),
        ("class is not null AND number > 7", [8]),
        ("`class` = 'O''Brien''s finch'", [0]),
        ("class = '''; DROP TABLE cache; --'", [1]),
        ("class IN ('''''', '')", [5, 6]),
        ("class LIKE 'Zaun%'", [7]),
        ("class LIKE '100\\%\\_%'", [4]),
        ("class LIKE '%jay_'", [2]),
        ("class NOT LIKE '%''%'", [2, 4, 6, 7, 8]),
        ("class = '\\'", [8]),
        ("number = 1 OR number = 2 AND number = 3", [1]),
        ("(number = 1 OR number = 2) AND number = 2", [2]),
        ("NOT (number = 1 OR NOT (number = 1 OR number = 2))", [2]),
        ("number=1 OR(number=2)", [1, 2]),
    ],
)
def test_a_condition_finds_the_rows_that_it_says(database, text, expected):
    assert found(database, parse_where(text, SCHEMA)) == expected


@settings(max_examples=60, deadline=None)
@given(name=st.text() | st.sampled_from(NAMES))
def test_any_class_name_is_found_by_its_literal_and_nothing_else(database, name):
    literal = "'" + name.replace("'", "''") + "'"
    expected = [NAMES.index(name)] if name in NAMES else []
    assert found(database, parse_where(f"class = {literal}", SCHEMA)) == expected
    assert found(database, where_equal({"class": name})) == expected
    assert found(database, parse_where(f"class != {literal} OR class IS NULL", SCHEMA)) == sorted(
        set(range(len(NAMES) + 1)) - set(expected)
    )


@given(text=st.text(alphabet="class number()'`\"=<>!;,-_%0123. \\/*#nullintrue", max_size=40) | st.text(max_size=30))
def test_whatever_is_typed_is_either_refused_or_written_anew(text):
    try:
        sql = parse_where(text, SCHEMA).sql
    except ValueError:
        return
    outside = sql.split("'")[::2]  # a doubled quote splits into an empty part of the outside
    assert not any(sign in part for part in outside for sign in (";", "--", "/*", '"', "\\", "#"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "place 1 .*it ends, wanted is a column"),
        ("class", "place 6 .*wanted is = !="),
        ("klass = 'a'", "place 1: 'klass' is no column; there are id, image, class"),
        ("vector = 1", "place 1: 'vector' holds arrays"),
        ("box = 1", "'box' holds arrays"),
        ("class = jay", "place 9 .*'jay' stands there, wanted is a value"),
        ('class = "jay"', "place 9 .*texts stand in single quotes"),
        ("class = 'jay", "text that begins at place 9 has no closing quote"),
        ("class = 'jay'; DROP TABLE cache", "place 14 is no part"),
        ("class = 'jay' -- more", "place 15 is no part"),
        ("class = 'jay' OR 1 = 1", "place 18 .*wanted is a column"),
        ("class = 'a' UNION SELECT 1", "place 13 .*'UNION' stands there, wanted is AND, OR or the end"),
        ("lower(class) = 'a'", "'lower' is no column"),
        ("class = NULL", "IS NULL"),
        ("class = 3", "place 9: class holds string, and 3 is none"),
        ("number = '3'", "place 10: number holds int32"),
        ("number LIKE '3'", "LIKE is for texts"),
        ("number = true", "number holds int32, and true is none"),
        ("number = 99999999999999999999", "too large a number for"),
        ("descriptor_similarity < 1e999", "finite"),
        ("number = " + "9" * 50, "at most 40"),
        ("number IN ()", "place 12 .*a value"),
        ("number IN (1, 2", "place 16 .*it ends"),
        ("number NOT = 3", "IN, LIKE or BETWEEN"),
        ("number = 3)", "place 11 .*AND, OR or the end"),
        ("(number = 3", "wanted is \\)"),
        ("number = 3abc", "no part of a condition"),
        ("class = 'a' AND", "place 16 .*it ends"),
        ("AND = 3", "wanted is a column"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text, said):
    with pytest.raises(ValueError, match=said):
        parse_where(text, SCHEMA)


def test_a_condition_as_large_as_allowed_is_answered_and_a_larger_one_refused(database):
    many = " OR ".join(["number = 3"] * lance_where.MOST_COMPARISONS)
    assert found(database, parse_where(many, SCHEMA)) == [3]
    deep = "NOT (" * (lance_where.DEEPEST // 2) + "number = 3" + ")" * (lance_where.DEEPEST // 2)
    assert found(database, parse_where(deep, SCHEMA)) == [0, 1, 2, *range(4, 10)]
    values = ", ".join(map(str, range(3, 3 + lance_where.MOST_VALUES)))
    assert found(database, parse_where(f"number IN ({values})", SCHEMA)) == list(range(3, 10))
    for text, said in [
        (f"{many} OR number = 3", "at most 200 comparisons"),
        (f"NOT ({deep})", "at most 10 levels"),
        (f"number IN ({values}, 1)", "at most 1,000 values"),
        (" " * 100_001, "at most 100,000 characters"),
    ]:
        with pytest.raises(ValueError, match=said):
            parse_where(text, SCHEMA)


def test_true_and_false_are_values_of_a_column_that_holds_them():
    schema = pa.schema([("flag", pa.bool_())])
    assert parse_where("flag = true OR flag != FALSE", schema).sql == "((`flag` = true) OR (`flag` != false))"


def test_two_filters_are_one_that_both_must_pass(database):
    either = parse_where("number = 1 OR number = 2", SCHEMA)
    assert found(database, both(either, where_equal({"number": 2}))) == [2]
    assert both(either, None) == both(None, either) == either
    assert both(None, None) is None
