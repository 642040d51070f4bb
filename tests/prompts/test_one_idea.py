"""One idea a descriptor: cut where two parts surely stand side by side, and nowhere else."""

from __future__ import annotations

import pytest

from prompts.one_idea import split_ideas


@pytest.mark.parametrize(
    ("text", "ideas"),
    [
        ("a red beak; long legs", ["a red beak", "long legs"]),
        ("a red beak\nlong legs\r\n\n3. short tail", ["a red beak", "long legs", "short tail"]),
        ("red beak<br>long legs", ["red beak", "long legs"]),
        ("red beak and long legs", ["red beak", "long legs"]),
        ("red beak, long legs", ["red beak", "long legs"]),
        ("a red beak, long legs, and a very short tail", ["a red beak", "long legs", "a very short tail"]),
        ("red beak / long legs", ["red beak", "long legs"]),
        ("white-tipped wings and blue-gray coat; and black bib", ["white-tipped wings", "blue-gray coat", "black bib"]),
        ("white wing bars and a long tail", ["white wing bars", "a long tail"]),
        ("**red beak** and *long legs*.", ["red beak", "long legs"]),
    ],
)
def test_attributes_are_cut_between_parts_that_each_have_a_look(text, ideas):
    assert split_ideas(text, "attributes") == ideas


@pytest.mark.parametrize(
    "text",
    [
        "black and white stripes",
        "black and white striped wings",
        "black head and breast",
        "head and neck",
        "red head and neck patch",
        "blue head and tail feathers",
        "long, curved beak",
        "long, curved and pointed beak",
        "spots on the wings and long tail",
        "red beak and legs",
        "red beak and native to Africa",
        "red beak and black cap with white spots",
        "red crown and white neck patch",
        "four doors and round headlights",
        "salt and pepper shaker",
        "wine and/or cheese",
        "1/2 inch screws",
        "sandy beach and blue sea",
    ],
)
def test_attributes_that_may_be_one_idea_stay_whole(text):
    assert split_ideas(text, "attributes") == [text]


def test_sentences_are_cut_at_new_lines_alone():
    text = "The jay has a red beak and long legs; its back is blue.\nA jay, seen from below."
    assert split_ideas(text, "sentences") == text.split("\n")


@pytest.mark.parametrize("text", ["", " \n ", "1.", "- \n**", ";;", "```json\n```"])
def test_nothing_is_left_of_a_text_without_words(text):
    assert split_ideas(text, "attributes") == []
