"""Plain text: numbering, markdown and quotes come off, and words stay as they were."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.plain_text import plain_text

MARKUP = st.text(alphabet="abA1. \t,;:-*_`#()[]\"'“”>•/\u200b…and", max_size=40)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1. long red beak", "long red beak"),
        ("12) long red beak", "long red beak"),
        ("(3) long red beak", "long red beak"),
        ("a) long red beak", "long red beak"),
        ("- long red beak", "long red beak"),
        ("* long red beak", "long red beak"),
        ("• long red beak", "long red beak"),
        ("- [x] long red beak", "long red beak"),
        ("> long red beak", "long red beak"),
        ("### long red beak", "long red beak"),
        ("1. **long red beak**", "long red beak"),
        ("**Long** _red_ *beak* __here__", "Long red beak here"),
        ("`long` [red](http://red.org) ![beak](a.png)", "long red beak"),
        ("<b>long</b> red <em>beak</em>", "long red beak"),
        ("```long red beak```", "long red beak"),
        ("***long*** ___red___ **beak** __here__", "long red beak here"),
        ("**2 * 3** __snake_case__ holes", "2 * 3 snake_case holes"),
        ('"long red beak"', "long red beak"),
        ("“long red beak.”", "long red beak"),
        ('"long red beak",', "long red beak"),
        ("'long red beak'.", "long red beak"),
        ("and long red beak;", "long red beak"),
        ("  long\u00a0red \t beak\u200b ", "long red beak"),
        ("long red beak…", "long red beak"),
        ("```json", ""),
        ("---", ""),
        ("2.", ""),
    ],
)
def test_what_wraps_a_descriptor_is_taken_off(given, expected):
    assert plain_text(given, "attributes") == expected


@pytest.mark.parametrize(
    "text",
    [
        "2.5 cm long bill",
        "3 white bars",
        "747 written on the tail",
        "V-shaped tail",
        "4-petalled flower",
        '"red" and "blue" labels',
        "snake_case label",
        "5 * 5 grid",
        "wings (when open)",
        "dogs' ears",
        "sandy coat, black muzzle",
        "andean pattern",
        "(rarely) white crest",
        "<1 cm wide bill",
    ],
)
def test_what_belongs_to_a_descriptor_stays(text):
    assert plain_text(text, "attributes") == text


@pytest.mark.parametrize("stuck", ["•", "•‣▪●◦", "•-", "**a ", "__a ", "and ", "``` "])
def test_a_model_that_got_stuck_costs_no_more_than_the_length_of_its_answer(stuck):
    assert plain_text(stuck * 50_000 + "long red beak", "attributes").endswith("long red beak")


def test_sentences_keep_their_full_stop_and_attributes_lose_it():
    assert plain_text("- The jay is **blue**.", "sentences") == "The jay is blue."
    assert plain_text("- blue back.", "attributes") == "blue back"


@settings(max_examples=150, deadline=None)
@given(MARKUP | st.text(), st.sampled_from(["attributes", "sentences"]))
def test_a_plain_text_is_plain_and_has_no_letters_that_were_not_given(text, form):
    plain = plain_text(text, form)
    assert plain_text(plain, form) == plain
    rest = iter(text)
    assert all(character == " " or character in rest for character in plain)
    assert plain == " ".join(plain.split())
