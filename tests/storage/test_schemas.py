from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storage.schemas import cache_schema, crops_schema, descriptors_schema, fixed_list, images_schema, to_numpy

dtypes = st.sampled_from([np.float16, np.float32, np.int32])
shapes = arrays.array_shapes(min_dims=2, max_dims=4, max_side=4)


@given(dtypes.flatmap(lambda dtype: arrays.arrays(dtype, shapes)))
def test_an_array_comes_back_from_its_column_bit_by_bit(array):
    column = fixed_list(array)
    assert len(column) == len(array)
    assert column.type.list_size == array[0].size
    back = to_numpy(column, array.shape[1:])
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


def test_neither_direction_copies():
    array = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    back = to_numpy(pa.chunked_array([fixed_list(array)]), (3, 2))
    assert np.shares_memory(back, array)
    assert not back.flags.writeable


def test_slices_chunks_and_empty_columns_are_read_right():
    array = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    column = fixed_list(array)
    assert np.array_equal(to_numpy(column[1:], (2, 2)), array[1:])
    assert np.array_equal(to_numpy(pa.chunked_array([column[:1], column[1:]]), (2, 2)), array)
    assert to_numpy(column[:0], (2, 2)).shape == (0, 2, 2)
    empty = to_numpy(pa.chunked_array([], type=column.type), (2, 2))
    assert (empty.shape, empty.dtype) == ((0, 2, 2), np.float16)


def test_what_no_column_or_array_can_hold_is_refused():
    with pytest.raises(TypeError, match="float64"):
        fixed_list(np.ones((1, 2)))
    for shape in ((2,), (2, 0)):
        with pytest.raises(ValueError, match="array"):
            fixed_list(np.ones(shape, np.float32))
    column = fixed_list(np.ones((2, 6), np.float32))
    with pytest.raises(ValueError, match="6 values a row"):
        to_numpy(column, (2, 2))
    with pytest.raises(ValueError, match="1 null"):
        to_numpy(pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), (2,))
    with pytest.raises(TypeError, match="fixed-size lists"):
        to_numpy(pa.array([1, 2]), (1,))


def test_polars_reads_half_floats_exactly():
    array = np.array([[0.1, -2.5], [65504, 6e-8]], np.float16)
    frame = pl.from_arrow(pa.table({"f": fixed_list(array)}))
    assert np.array_equal(np.array(frame["f"].to_list(), np.float16), array)


def test_every_lance_table_has_an_id_and_a_half_float_vector():
    for make in (images_schema, crops_schema, descriptors_schema, cache_schema):
        schema = make(8, {"model": "ViT-B-16"})
        assert schema.field("id") == pa.field("id", pa.string(), nullable=False)
        assert schema.field("vector").type == pa.list_(pa.float16(), 8)
        assert schema.metadata == {b"model": b"ViT-B-16"}
    for make in (crops_schema, cache_schema):
        assert make(8).field("box").type == pa.list_(pa.int32(), 4)
    assert crops_schema(8).metadata is None
