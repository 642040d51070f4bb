"""Words that ship, and random descriptors by the rules of algorithms.md 5."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.words import shipped_words
from prompts.words_at_random import Shape, characters_of, random_descriptors, shape_of


def test_the_words_that_ship_are_plain_english_each_once():
    words = shipped_words()
    assert len(words) == len(set(words)) > 500
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 10 for word in words)


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (["wren"], Shape(words=1, letters=4, blocks=1, characters=5)),  # a whole block is added: 4 + (1 - 4 mod 1)
        (["blue jay", "wren"], Shape(words=2, letters=4, blocks=1, characters=5)),  # 1.5 and .5 round to even
        (["great blue heron", "little egret"], Shape(words=2, letters=5, blocks=3, characters=3)),
        (["a b c d", "e f g h"], Shape(words=4, letters=1, blocks=4, characters=1)),  # 1 + (4 - 1) in 4 blocks
    ],
)
def test_random_descriptors_are_as_long_as_the_class_names(names, shape):
    assert shape_of(names) == shape


def test_characters_are_those_of_the_descriptors_without_commas_full_stops_and_spaces():
    assert characters_of(("a red, red beak.", "2\tfeet")) == "2abdefkrt"
    assert characters_of((" ,.",)) == ""


def test_pairs_of_words_and_characters_have_the_shape():
    drawn = random_descriptors(Shape(2, 3, 3, 4), ["wooden", "ox"], "xy", pairs=15, seed=0)
    assert len(drawn) == 30
    for words, characters in zip(drawn[::2], drawn[1::2], strict=True):
        assert len(words.split(" ")) == 2
        assert set(words.split(" ")) <= {"woo", "ox"}
        assert [len(block) for block in characters.split(", ")] == [4, 4, 4]
        assert set(characters) <= set("xy, ")


@given(seed=st.integers(0, 2**32), pairs=st.integers(1, 4))
def test_a_draw_is_the_same_for_the_same_seed_and_begins_alike_with_more_pairs(seed, pairs):
    shape, words = Shape(2, 6, 2, 5), shipped_words()
    drawn = random_descriptors(shape, words, "abcdef", pairs=pairs, seed=seed)
    assert random_descriptors(shape, words, "abcdef", pairs=pairs + 1, seed=seed)[: 2 * pairs] == drawn


def test_every_word_and_character_is_drawn_about_as_often():
    drawn = random_descriptors(Shape(10, 9, 1, 100), ["one", "two"], "abcd", pairs=200, seed=1)
    words = " ".join(drawn[::2]).split(" ")
    assert 900 < words.count("one") < 1100  # 2,000 draws: 22 is one standard deviation
    characters = "".join(drawn[1::2])
    assert all(4700 < characters.count(c) < 5300 for c in "abcd")  # 20,000 draws: 61 is one standard deviation


@pytest.mark.parametrize(("words", "characters"), [([], "abc"), (["word"], "")])
def test_nothing_to_draw_from_is_an_error(words, characters):
    with pytest.raises(ValueError, match="at least one word and one character"):
        random_descriptors(Shape(1, 1, 1, 1), words, characters, pairs=1, seed=0)
