"""Names within texts: other classes are found by whole words, and what only looks like their names is not."""

from __future__ import annotations

import pytest

from prompts.names_within import OtherNames, is_name, name_words, without_name, words_of

BIRDS = [
    "Blue_Jay",
    "jay",
    "Common Raven",
    "raven",
    "indigo bunting",
    "Swainson's_hawk",
    "crane (bird)",
    "crane (machine)",
    "orange",
    "mask",
    "bell",
    "chest",
    "striped",
    "can",
    "747",
    "DC-10",
    "cherry",
    "ox",
    "wool",
    "screw",
    "pole",
    "cup",
    "water_bottle",
]


@pytest.mark.parametrize(
    ("own", "text", "other"),
    [
        ("jay", "bigger than a blue jay", "Blue_Jay"),
        ("jay", "Blue-Jay-like crest", "Blue_Jay"),
        ("jay", "the crest of blue jays", "Blue_Jay"),
        ("jay", "unlike the common raven's bill", "Common Raven"),
        ("jay", "like ravens", "raven"),
        ("jay", "a hawk such as Swainson’s hawk", "Swainson's_hawk"),
        ("jay", "neck of a crane", "crane (bird)"),
        ("jay", "painted like a DC-10", "DC-10"),
        ("jay", "eyes like cherries", "cherry"),
        ("jay", "unlike the striped one", "striped"),
        ("jay", "a rounder head than an orange", "orange"),
        ("jay", "a rounder head than a cup", "cup"),
        ("jay", "shaped like a bell, with a raven on it", "raven"),
        ("jay", "looks like a bell", "bell"),
        ("Common Raven", "an indigo bunting's blue", "indigo bunting"),
    ],
)
def test_another_class_is_found_in_any_case_and_number_with_hyphens_and_possessives(own, text, other):
    assert OtherNames(BIRDS).first_in(words_of(text), own) == other


@pytest.mark.parametrize(
    ("own", "text"),
    [
        ("Blue_Jay", "a jay with a blue crest, as jays have"),
        ("Common Raven", "the raven's bill"),
        ("crane (bird)", "a crane with a long neck"),
        ("jay", "jaybird crest and ravenous look"),
        ("jay", "an indigo back like no bunting's"),
        ("jay", "bright orange beak"),
        ("jay", "black mask over the eyes"),
        ("jay", "white chest, striped below"),
        ("jay", "bell-shaped throat patch"),
        ("jay", "a throat patch shaped like a bell"),
        ("jay", "shaped like water bottles"),
        ("jay", "bloom shaped like a cup"),
        ("jay", "thick wool fleece"),
        ("jay", "metal screw cap"),
        ("jay", "mounted on a metal pole"),
        ("jay", "a crest that can be raised"),
        ("jay", "747 feathers"),
        ("jay", "blue crest"),
        ("jay", ""),
    ],
)
def test_parts_of_its_own_name_of_words_and_names_that_are_seldom_names_are_not_found(own, text):
    assert OtherNames(BIRDS).first_in(words_of(text), own) is None


def test_two_classes_of_one_name_are_not_each_others_others():
    names = OtherNames(["missile", "Missile", "crane", "crane (n03126707)"])
    assert names.first_in(words_of("a missile"), "missile") is None
    assert names.first_in(words_of("a crane"), "crane (n03126707)") is None


def test_a_class_is_called_without_what_a_list_adds_in_brackets():
    assert name_words("kite_(bird of prey)") == ("kite",)
    assert name_words("(unnamed)") == ("unnamed",)


def test_a_name_is_known_in_both_numbers_and_taken_out_of_a_text():
    blue_jay = name_words("Blue_Jay")
    assert is_name(("blue", "jays"), blue_jay)
    assert not is_name(("blue", "jay", "crest"), blue_jay)
    assert without_name(words_of("The blue jay is one of the blue jays."), blue_jay).split() == [
        "the",
        "is",
        "one",
        "of",
        "the",
    ]
    assert without_name(("crest",), blue_jay).split() == ["crest"]
