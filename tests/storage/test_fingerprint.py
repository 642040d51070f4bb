from __future__ import annotations

import enum
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import fingerprint
from storage.fingerprint import digest, digest_pairs, file_sha256

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def shuffled(value: object) -> object:
    """The same value with the keys of every dict in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def test_a_digest_is_the_start_of_the_sha256_of_canonical_json():
    text = '{"a":[1,2.5,null,true],"b":"\\u00e9"}'
    assert digest({"b": "é", "a": [1, 2.5, None, True]}) == hashlib.sha256(text.encode()).hexdigest()[:20]


@given(plain)
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest(value) == digest(shuffled(value))
    assert len(digest(value)) == 20


@given(plain)
def test_a_digest_survives_a_round_trip_through_json(value):
    assert digest(json.loads(json.dumps(value))) == digest(value)


def test_values_that_mean_different_things_have_different_digests():
    values = [None, False, 0, 0.0, "", "0", [], {}, [0], [[0]], {"0": 0}, 1, 1.0, True, 0.1 + 0.2, 0.3]
    assert len({digest(value) for value in values}) == len(values)


def test_a_tuple_counts_as_a_list_and_minus_zero_as_zero():
    assert digest((1, (2,))) == digest([1, [2]])
    assert digest(-0.0) == digest(0.0)


def test_values_whose_text_could_differ_are_refused_with_their_place():
    class Colour(str, enum.Enum):
        RED = "red"

    for value in (np.float64(1), np.int64(1), Colour.RED, Path("a"), {1, 2}, b"a"):
        with pytest.raises(TypeError, match=r"value\['x'\]\[1\] is a "):
            digest({"x": [0, value]})
    with pytest.raises(TypeError, match="keys must be str"):
        digest({1: 2})
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            digest([value])


@given(st.lists(st.tuples(st.text(), st.text())), st.randoms(use_true_random=False))
def test_a_digest_of_pairs_does_not_depend_on_their_order(pairs, random):
    again = list(pairs)
    random.shuffle(again)
    assert digest_pairs(iter(again)) == digest_pairs(pairs)


def test_pairs_cannot_be_confused_by_moving_text_across_their_border():
    assert digest_pairs([("ab", "c")]) != digest_pairs([("a", "bc")])
    assert digest_pairs([("a", "b"), ("c", "d")]) != digest_pairs([("a", "d"), ("c", "b")])
    assert digest_pairs([]) != digest_pairs([("", "")])
    with pytest.raises(TypeError, match="pair of two str"):
        digest_pairs([("a", 1)])


def test_a_file_name_that_is_no_valid_text_has_a_digest():
    assert len(digest_pairs([("caf\udce9.jpg", "1")])) == 20


def test_a_weights_file_is_hashed_once_until_it_changes(tmp_path):
    weights, cache = tmp_path / "w.safetensors", str(tmp_path / "cache" / "hashes.json")
    weights.write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert file_sha256(str(weights)) == expected
    assert file_sha256(str(weights), cache) == expected
    stamp = weights.stat().st_mtime_ns
    weights.write_bytes(b"xyz")
    os.utime(weights, ns=(stamp, stamp))  # same path, size and time: only a cache answers as before
    assert file_sha256(str(weights), cache) == expected
    os.utime(weights, ns=(stamp, stamp + 1_000_000))
    assert file_sha256(str(weights), cache) == hashlib.sha256(b"xyz").hexdigest()


def test_a_cache_of_hashes_that_was_destroyed_is_started_anew(tmp_path):
    weights, cache = tmp_path / "w", tmp_path / "hashes.json"
    weights.write_bytes(b"abc")
    for broken in (b"{", b"[]", b"\xff", json.dumps({str(weights): 1}).encode()):
        cache.write_bytes(broken)
        assert file_sha256(str(weights), str(cache)) == hashlib.sha256(b"abc").hexdigest()
    assert list(json.loads(cache.read_bytes())) == [str(weights)]


def test_hashes_in_an_object_store_are_asked_for_once_a_process_and_serve_the_next(tmp_path, bucket, asked):
    weights, cache = tmp_path / "w", f"{bucket}/weights.json"
    weights.write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert file_sha256(str(weights), cache) == expected
    asked.clear()
    assert file_sha256(str(weights), cache) == expected
    assert asked == []
    fingerprint._asked.clear()  # as a new process would find it
    weights_changed_unseen(weights)
    assert file_sha256(str(weights), cache) == expected
    weights.write_bytes(b"longer")
    assert file_sha256(str(weights), cache) == hashlib.sha256(b"longer").hexdigest()


def weights_changed_unseen(weights: Path) -> None:
    """Other bytes with the same size and time: only a cache answers as before."""
    stamp = weights.stat().st_mtime_ns
    weights.write_bytes(b"xyz")
    os.utime(weights, ns=(stamp, stamp))
