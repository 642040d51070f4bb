"""The digest of columns: the same for the same rows, another one for any other, however they are cut into chunks."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.column_digest import digest_columns

texts = st.lists(st.none() | st.text(max_size=4), max_size=8)


def column(values: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


@given(texts, st.integers(0, 8), st.integers(0, 3))
def test_chunks_and_what_lies_beside_a_slice_do_not_matter(values, cut, before):
    padded = pa.array(["x"] * before + values + ["y"], pa.string()).slice(before, len(values))
    chunked = pa.chunked_array([padded.slice(0, cut), padded.slice(cut)])
    assert digest_columns([chunked]) == digest_columns([column(values)])


@given(texts, texts)
def test_other_rows_have_another_digest(one, other):
    assert (digest_columns([column(one)]) == digest_columns([column(other)])) == (one == other)


def test_where_one_column_ends_and_the_next_begins_matters():
    found = {
        digest_columns([column(first), column(second)])
        for first, second in ([["ab"], ["c"]], [["a"], ["bc"]], [["abc"], [""]], [["abc"], [None]], [["abc", None], []])
    }
    assert len(found) == 5
    assert digest_columns([]) != digest_columns([column([])])


def test_the_format_is_the_one_that_is_written_down():
    written = (2).to_bytes(8, "little") + bytes([2, 0, 0, 0]) + b"\xff\xff\xff\xff" + "é".encode()
    assert digest_columns([column(["é", None])]) == hashlib.sha256(written).hexdigest()[:20]


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="string, not int64"):
        digest_columns([pa.chunked_array([[1]])])
