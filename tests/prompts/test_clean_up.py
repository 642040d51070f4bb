"""Clean-up: what is kept of a model's answers, and a reason for everything that is not."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.answers import Descriptor
from prompts.clean_up import REASONS, clean_descriptors
from prompts.one_idea import split_ideas


def count_words(texts):
    return [len(text.split()) + 2 for text in texts]


def clean(answers, form="attributes", most=None, max_tokens=None, count_tokens=count_words):
    given = {
        name: [text if isinstance(text, Descriptor) else Descriptor(text) for text in texts]
        for name, texts in answers.items()
    }
    kept, dropped = clean_descriptors(given, form=form, most=most, max_tokens=max_tokens, count_tokens=count_tokens)
    return {name: [descriptor.text for descriptor in found] for name, found in kept.items()}, dropped


def test_marks_as_a_model_writes_them_come_out_plain_in_order_with_their_aspects():
    answers = {
        "blue_jay": [
            Descriptor("1. **Long red beak.**", " bill "),
            Descriptor("white wings; black bib", "wings"),
            Descriptor("blue crest", ""),
        ],
        "raven": [],
    }
    kept, dropped = clean_descriptors(answers, form="attributes", most=None, max_tokens=None, count_tokens=count_words)
    assert kept == {
        "blue_jay": [
            Descriptor("Long red beak", "bill"),
            Descriptor("white wings", "wings"),
            Descriptor("black bib", "wings"),
            Descriptor("blue crest", None),
        ],
        "raven": [],
    }
    assert dropped == []


@pytest.mark.parametrize(
    ("text", "kept", "reason", "detail"),
    [
        ("", "", "empty", "nothing is left of it"),
        ("?!", "?!", "empty", "says nothing"),
        ("N/A", "N/A", "empty", "says nothing"),
        ("- I'm sorry, I can't.", "I'm sorry, I can't", "refusal", "the model declines"),
        ("Here are nine marks:", "Here are nine marks:", "chatter", "speaks to the reader, not of the class"),
        ("A blue jay.", "A blue jay", "class name alone", "says nothing but the name"),
        ("Blue Jays", "Blue Jays", "class name alone", "says nothing but the name"),
        ("bigger than a raven", "bigger than a raven", "another class", "names raven"),
        ("found in Africa", "found in Africa", "not visual", "speaks of place"),
        ("The Red Beak!", "The Red Beak!", "duplicate", "says the same as 'red beak'"),
        ("eyes " * 9, "eyes eyes eyes eyes eyes eyes eyes eyes eyes", "too long", "11 of 10 tokens"),
    ],
)
def test_a_descriptor_that_is_no_use_goes_with_a_reason_and_what_exactly(text, kept, reason, detail):
    answers = {"Blue_Jay": ["red beak", text, "white cap"], "raven": ["bigger beak"]}
    result, dropped = clean(answers, max_tokens=10)
    assert result["Blue_Jay"] == ["red beak", "white cap"]
    assert dropped == [("Blue_Jay", kept, reason, detail)]
    assert reason in REASONS


def test_a_mark_that_most_classes_have_goes_from_all_of_them_and_one_that_relatives_share_stays():
    answers = {name: ["two wings", f"{look} bill"] for name, look in (("ab", "long"), ("cd", "short"), ("ef", "red"))}
    answers["ab"].append("red cap")
    answers["cd"].append("a red cap")
    answers |= {"gh": ["Two wings.", "no bill at all"], "ij": ["long tail"]}
    kept, dropped = clean(answers)
    assert kept["ab"] == ["long bill", "red cap"]
    assert kept["cd"] == ["short bill", "a red cap"]
    assert kept["gh"] == ["no bill at all"]
    assert {each.class_name for each in dropped} == {"ab", "cd", "ef", "gh"}
    assert {each[2:] for each in dropped} == {("shared by most classes", "4 of 5 classes have it")}


def test_half_of_the_classes_or_two_of_three_may_share_a_mark():
    def shared_by(sharing, all_of_them):
        return clean({name: [f"mark {ord(name)}", *["two wings"] * (name in sharing)] for name in all_of_them})[1]

    assert shared_by("ab", "abc") == []
    assert shared_by("abc", "abcdef") == []
    assert len(shared_by("abc", "abcde")) == 3


def test_a_class_that_has_shared_marks_alone_keeps_the_one_that_fewest_share_the_first_of_equals():
    answers = {name: ["two wings", f"mark {name * 3}", "two legs"] for name in "abc"}
    answers |= {"d": ["two eyes", "two wings", "two legs"], "e": ["two eyes", "two legs"], "f": ["Two wings"]}
    kept = clean(answers)[0]
    assert [kept[name] for name in "abcdef"] == [
        ["mark aaa"],
        ["mark bbb"],
        ["mark ccc"],
        ["two eyes"],
        ["two eyes"],
        ["Two wings"],
    ]
    assert clean({name: ["two wings", "two legs"] for name in "abcd"})[0] == {name: ["two wings"] for name in "abcd"}
    answers["e"] = ["two wings", "two legs"]
    answers |= {name: ["two legs", f"mark {name * 3}"] for name in "gh"}
    assert clean(answers)[0]["e"] == ["two wings"]
    assert clean({"a": ["two wings", "two legs"]})[1] == []


def test_what_both_of_two_classes_have_goes_from_both_unless_one_of_them_has_nothing_else():
    kept, dropped = clean({"ab": ["two wings", "red cap"], "cd": ["white bib", "Two wings."]})
    assert kept == {"ab": ["red cap"], "cd": ["white bib"]}
    assert {each[2:] for each in dropped} == {("shared by most classes", "2 of 2 classes have it")}
    kept, dropped = clean({"ab": ["two wings", "two legs"], "cd": ["two legs", "two wings", "white bib"]})
    assert kept == {"ab": ["two wings"], "cd": ["two wings", "white bib"]}
    assert [each.text for each in dropped] == ["two legs", "two legs"]


def test_sentences_that_differ_in_the_class_name_alone_are_shared():
    names = ["blue_jay", "raven", "crow"]
    answers = {
        name: [f"A photo of a {name.replace('_', ' ')}.", f"The {name.replace('_', ' ')} is {len(name)}."]
        for name in names
    }
    kept, dropped = clean(answers, form="sentences")
    assert kept["blue_jay"] == ["The blue jay is 8."]
    assert [each.reason for each in dropped] == ["shared by most classes"] * 3


def test_sentences_keep_their_own_name_and_full_stop_and_lose_those_that_name_another():
    answers = {
        "American crow": [
            "The American crow is black; its bill is long.",
            "Unlike the common raven, it has a square tail.",
        ],
        "common raven": ["A common raven has a wedge-shaped tail.", "Crows and the common raven are black."],
    }
    kept, dropped = clean(answers, form="sentences")
    assert kept == {
        "American crow": ["The American crow is black; its bill is long."],
        "common raven": ["A common raven has a wedge-shaped tail.", "Crows and the common raven are black."],
    }
    assert [(each.reason, each.detail) for each in dropped] == [("another class", "names common raven")]


def test_the_first_so_many_of_the_good_ones_stay():
    kept, dropped = clean({"jay": ["red beak", "n/a", "white cap", "long tail", "short legs"]}, most=2)
    assert kept == {"jay": ["red beak", "white cap"]}
    assert [(each.text, each.reason, each.detail) for each in dropped[1:]] == [
        ("long tail", "beyond per_class", "number 3, 2 are kept"),
        ("short legs", "beyond per_class", "number 4, 2 are kept"),
    ]


def test_tokens_are_counted_of_all_texts_at_once_and_only_where_there_is_a_limit():
    asked = []

    def count(texts):
        asked.append(list(texts))
        return count_words(texts)

    answers = {"ab": ["red beak", "white cap"], "cd": ["red beak"]}
    assert clean(answers, max_tokens=4, count_tokens=count) == (answers, [])
    assert asked == [["red beak", "white cap"]]
    clean(answers, count_tokens=count)
    clean({"ab": []}, max_tokens=4, count_tokens=count)
    assert len(asked) == 1


NAMES = ["blue_jay", "jay", "raven", "crane (bird)", "kite"]
TEXTS = st.sampled_from(
    [
        *("red beak", "a red beak.", "1. **red beak**", "red beak; long legs", "red beak and long legs\n- white cap"),
        *(
            "Here are:",
            "I'm sorry",
            "found in Africa",
            "",
            "n/a",
            "blue jay",
            "the raven's bill",
            "kites",
            "a jay crest",
            *("two wings", "two legs", "no visible marks"),
        ),
        *("x" * 9, "one two three four five six seven", "; and the", "'a'; \"b\"", "1. 2. 3.", "* *", "a / b, and c"),
    ]
) | st.text(max_size=30)


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={name: st.lists(TEXTS, max_size=8) for name in NAMES}),
    st.sampled_from(["attributes", "sentences"]),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(3, 8),
)
def test_every_idea_is_kept_or_dropped_with_a_reason_and_cleaning_again_changes_nothing(answers, form, most, limit):
    kept, dropped = clean(answers, form, most, limit)
    assert list(kept) == list(answers)
    for name, texts in answers.items():
        ideas = [idea for text in texts for idea in split_ideas(text, form) or [text]]
        assert Counter(ideas) == Counter(kept[name] + [each.text for each in dropped if each.class_name == name])
        order = iter(ideas)
        assert all(text in order for text in kept[name])
        assert most is None or len(kept[name]) <= most
    assert {each.reason for each in dropped} <= set(REASONS)
    assert all(each.detail for each in dropped)
    assert clean(kept, form, most, limit) == (kept, [])
