from __future__ import annotations

import string

import pytest

from prompts.phrasing import check_template, clean_class_name, phrase, speaks_of_descriptors, which_clause


def test_underscores_of_a_class_name_are_spoken_as_spaces():
    assert clean_class_name("blue_footed_booby") == "blue footed booby"
    assert clean_class_name("kite (bird of prey)") == "kite (bird of prey)"


@pytest.mark.parametrize(
    ("descriptor", "clause"),
    [
        ("a long red beak", "which is a long red beak"),
        ("an eye ring", "which is an eye ring"),
        ("antennae", "which is antennae"),  # a raw prefix test, as published
        ("has webbed feet", "which has webbed feet"),
        ("often found near water", "which often found near water"),
        ("typically white", "which typically white"),
        ("may hover", "which may hover"),
        ("can swim", "which can swim"),
        ("used for cooking", "which is used for cooking"),
        ("long red beak", "which has long red beak"),
        ("A long red beak", "which has A long red beak"),
    ],
)
def test_the_clause_follows_the_published_prefix_rule(descriptor, clause):
    assert which_clause(descriptor) == clause


def test_a_phrase_fills_class_descriptor_and_clause():
    filled = phrase("a photo of a {class}, {which}.", "blue_jay", "blue crest")
    assert filled == "a photo of a blue jay, which has blue crest."
    assert phrase("{class}: {descriptor}", "blue_jay", "blue crest") == "blue jay: blue crest"
    assert phrase("a photo of a {class}.", "blue_jay") == "a photo of a blue jay."


def test_braces_in_names_and_descriptors_are_kept_as_they_are():
    assert phrase("a {class}, {which}", "set {x}", "curly {braces}") == "a set {x}, which has curly {braces}"
    assert phrase("a {{{class}}}", "jay") == "a {jay}"


@pytest.mark.parametrize(
    "template",
    [
        "a photo of a {}.",
        "a {name}",
        "a {class!r}",
        "a {class:>9}",
        "a {class.upper}",
        "a {class[0]}",
        "a {class",
    ],
)
def test_a_template_with_anything_but_known_variables_is_refused_with_the_allowed_ones(template):
    with pytest.raises(ValueError, match=r"\{class\}, \{descriptor\}, \{which\}"):
        check_template(template)


def test_a_template_without_variables_is_refused():
    with pytest.raises(ValueError, match="the same of every class"):
        check_template("a photo of a bird.")


def test_a_template_that_wants_a_descriptor_is_refused_without_one():
    with pytest.raises(ValueError, match=r"\{which\}; allowed: \{class\}"):
        phrase("{class}, {which}", "jay")


def test_a_template_is_parsed_once_however_many_texts_it_makes(monkeypatch):
    parsed, parse = [], string.Formatter.parse
    monkeypatch.setattr(string.Formatter, "parse", lambda self, text: parsed.append(text) or parse(self, text))
    template = "once and for all a {class}, {which}"
    assert {phrase(template, "jay", "blue") for _ in range(3)} == {"once and for all a jay, which has blue"}
    assert [speaks_of_descriptors(template) for _ in range(3)] == [True] * 3
    assert parsed == [template] * 2  # to check it, and to see what it speaks of


def test_the_variables_that_are_allowed_may_be_any_collection():
    assert check_template("a {class}", ["class"]) == "a {class}"
    with pytest.raises(ValueError, match=r"\{which\}; allowed: \{class\}"):
        check_template("{which}", {"class"})


@pytest.mark.parametrize(
    ("template", "speaks"),
    [("{class}, {which}", True), ("{descriptor}", True), ("a {class}.", False), ("a {class} {{which}}", False)],
)
def test_a_template_speaks_of_descriptors_when_it_has_a_place_for_one(template, speaks):
    assert speaks_of_descriptors(template) is speaks
