"""Answers: what servers are asked for, and what is read of the many shapes in which models answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.answers import BadAnswer, Descriptor, answer_schema, parse_answer, response_format

MARKS = json.dumps({"descriptors": [{"aspect": "bill", "text": "long red bill"}, {"aspect": "", "text": "white cap"}]})
TEXTS = json.dumps({"descriptors": ["long red bill", "white cap"]}, indent=1)
READ = [Descriptor("long red bill"), Descriptor("white cap")]


def objects(schema):
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)


@pytest.mark.parametrize(("kind", "nested"), [("marks", 2), ("texts", 1)])
def test_the_schema_keeps_to_the_strict_subset_and_has_no_references(kind, nested):
    asked = response_format(kind, "schema")
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["strict"] is True
    found = list(objects(asked["json_schema"]["schema"]))
    assert len(found) == nested
    assert all(each["additionalProperties"] is False for each in found)
    assert all(each["required"] == list(each["properties"]) for each in found)
    assert not {"$ref", "$defs", "title"} & set(json.dumps(asked).replace('"', " ").split())


def test_json_mode_asks_for_an_object_and_text_for_nothing():
    assert response_format("marks", "json") == {"type": "json_object"}
    assert response_format("marks", "text") is None


def test_json_of_the_schema_is_read_in_order_with_its_aspects():
    assert parse_answer(MARKS, "marks") == [Descriptor("long red bill", "bill"), Descriptor("white cap", "")]
    assert answer_schema("texts").model_validate_json(TEXTS).descriptors == ["long red bill", "white cap"]


@pytest.mark.parametrize(
    "answer",
    [
        TEXTS,
        f"\n{TEXTS}\n\n",
        f"```json\n{TEXTS}\n```",
        f"```\n{TEXTS}\n```",
        f"Here are two:\n\n```json\n{TEXTS}\n```",
        f"<think>\nA bird. {{perhaps}}\n</think>\n\n{TEXTS}",
        "- long red bill\n- white cap",
        "* long red bill\n\n* white cap\n",
        "• long red bill\n• white cap",
        "1. long red bill\n2. white cap",
        "1) long red bill\n2) white cap",
        "(1) long red bill\n(2) white cap",
        "Two marks of the blue jay:\n\n1. long red bill\n2. white cap",
        "**Field marks:**\n- long red bill\n- white cap",
        "```\n- long red bill\n- white cap\n```",
    ],
)
def test_an_answer_is_read_in_each_shape_that_models_and_servers_give_it(answer):
    assert parse_answer(answer, "texts", finish_reason="stop") == READ


def test_a_list_of_marks_has_aspects_before_a_colon_and_a_text_silent_about_its_part_keeps_it():
    answer = "- **Bill:** long red bill\n- **Wing tips**: black\n- white cap\n- Crest: _blue_ Crest."
    assert parse_answer(answer, "marks") == [
        Descriptor("long red bill", "Bill"),
        Descriptor("Wing tips: black", "Wing tips"),
        Descriptor("white cap", None),
        Descriptor("blue Crest", "Crest"),
    ]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "the answer is empty"),
        (" \n", "the answer is empty"),
        ("<think>hm</think>", "the answer is empty"),
        (TEXTS[:-5], "the answer's JSON ends too early: '{ \"descriptors\""),
        (f"```json\n{TEXTS[:-5]}", "the answer's code block does not end: '```json"),
        ('{"descriptors": ["a",]}', "is not valid JSON"),
        ('{"descriptors": []}', "has no descriptors"),
        ('{"descriptors": ["", " "]}', "has no descriptors"),
        ('{"descriptors": [1]}', r"another shape \(at descriptors\.0: input should be a valid string\)"),
        ('{"descriptors": "red bill"}', r"another shape \(at descriptors: input should be a valid array\)"),
        ('{"descriptors": ["red bill"], "n": 1}', r"another shape \(at n: extra inputs are not permitted\)"),
        ('{"marks": ["red bill"]}', r"another shape \(at descriptors: field required\)"),
        ('["red bill"]', r"another shape \(at the top: "),
        (MARKS, r"another shape \(at descriptors\.0: "),
        (f"{TEXTS}\nI hope this helps.", "is not valid JSON"),
        ("The jay has a red bill.", "neither the JSON asked for nor a list: 'The jay has a red bill.'"),
        ("red bill\nwhite cap", "neither the JSON asked for nor a list"),
        ("- red bill\n1. white cap", "neither the JSON asked for nor a list"),
        ("- red bill\nLet me know if you need more.", "neither the JSON asked for nor a list"),
        ("Marks:", "neither the JSON asked for nor a list"),
        ("I'm sorry, but I can't help with that.", "the model refused: \"I'm sorry, but I can't help"),
        ("I’m sorry, I can’t assist.", "the model refused"),
        ("As an AI language model, I do not see.", "the model refused"),
        ("Unfortunately, I have no information.", "the model refused"),
        ("[" * 100_000, "not valid JSON|ends too early"),
    ],
)
def test_another_answer_is_refused_with_a_reason_and_at_most_eighty_characters_of_it(answer, reason):
    with pytest.raises(BadAnswer, match=reason) as refused:
        parse_answer(answer, "texts")
    assert len(str(refused.value)) < 260
    assert "\n" not in str(refused.value)


def test_only_the_first_eighty_characters_of_an_answer_are_shown():
    with pytest.raises(BadAnswer) as refused:
        parse_answer("long " * 1000, "texts")
    shown = str(refused.value).partition(": ")[2]
    assert len(shown) <= 80
    assert (shown[:10], shown[-2:]) == ("'long long", "…'")


def test_what_the_server_says_of_the_answer_comes_before_what_it_holds():
    with pytest.raises(BadAnswer, match=r"the model refused: 'I will not\.'"):
        parse_answer(TEXTS, "texts", refusal="I will not.")
    with pytest.raises(BadAnswer, match="content filter"):
        parse_answer(TEXTS, "texts", finish_reason="content_filter")
    with pytest.raises(BadAnswer, match=r"cut off at the limit of tokens, after '\{"):
        parse_answer(TEXTS, "texts", finish_reason="length")
    with pytest.raises(BadAnswer, match="cut off at the limit of tokens, after no word"):
        parse_answer(None, "texts", finish_reason="length")
    assert parse_answer(TEXTS, "texts", finish_reason="stop", refusal="") == READ


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text(alphabet='{}[]"-*1.:\n ad`\ud800\x00'), st.sampled_from(["marks", "texts"]))
def test_any_answer_gives_descriptors_or_one_kind_of_error(content, kind):
    try:
        found = parse_answer(content, kind)
    except BadAnswer:
        return
    assert any(descriptor.text.strip() for descriptor in found)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_whatever_texts_a_model_gives_in_json_come_back_as_they_were(texts):
    answer = json.dumps({"descriptors": texts})
    assert [descriptor.text for descriptor in parse_answer(answer, "texts")] == texts
