"""What is asked of one class: first all questions, then again what came to nothing, and no more than is needed."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.prompt_file import read_prompt
from stages.descriptor_settings import OpenAIDescriptors
from stages.interview import Asking, Interview, Turn


def interview(prompt: str = "field_marks", mode: str = "schema", **settings) -> Interview:
    asked = OpenAIDescriptors(model="some", base_url="http://here/v1", prompt=prompt, **settings)
    return Interview("blue_jay", Asking(asked, read_prompt(prompt), mode), ["wren"])


def answer(*texts: str, content: str | None = None, **more) -> dict:
    marks = [{"aspect": "bill", "text": text} for text in texts]
    said = json.dumps({"descriptors": marks}) if content is None else content
    return {"content": said, "refusal": None, "finish_reason": "stop"} | more


MARKS = [f"bill with {number} spots" for number in range(12)]


def test_a_class_whose_first_answer_says_enough_is_asked_once():
    one = interview()
    assert one.lacking() == [Turn(0, 0, 0)]
    one.note(Turn(0, 0, 0), answer(*MARKS))
    assert one.lacking() == []
    assert [each.text for each in one.descriptors()] == MARKS
    assert one.descriptors()[0].aspect == "bill"


def test_an_answer_that_cannot_be_read_is_asked_for_again_until_the_attempts_are_used_up():
    one = interview(attempts=2)
    one.note(Turn(0, 0, 0), answer(content="I'm sorry, but I can't help with that."))
    assert one.lacking() == [Turn(0, 0, 1)]
    one.note(Turn(0, 0, 1), answer(content="", finish_reason="length"))
    assert one.lacking() == []
    assert one.descriptors() == []
    assert "cut off" in one.complaint()


def test_answers_that_say_too_little_or_repeat_themselves_are_added_up():
    one = interview()
    one.note(Turn(0, 0, 0), answer(*MARKS[:5], MARKS[0], MARKS[1].upper()))
    assert one.lacking() == [Turn(0, 0, 1)]
    one.note(Turn(0, 0, 1), answer(*MARKS[3:9]))
    assert one.lacking() == []
    assert {each.text for each in one.descriptors()} == {*MARKS[:9], MARKS[1].upper()}


def test_every_question_and_sample_of_a_prompt_is_asked_and_repeats_are_told_apart():
    one = interview("cupl", per_class=30)
    prompt = read_prompt("cupl")
    turns = one.lacking()
    assert len(turns) == len(prompt.questions) * prompt.samples > 5
    bodies = {json.dumps(one.body(turn), sort_keys=True) + str(one.repeat(turn)) for turn in turns}
    assert len(bodies) == len(turns)


def test_with_a_seed_each_repeat_has_a_seed_of_its_own():
    one = interview(seed=7, attempts=3)
    assert [one.body(Turn(0, 0, attempt))["seed"] for attempt in range(3)] == [7, 8, 9]


def test_a_body_carries_what_the_job_says_and_what_the_server_is_held_to():
    body = interview(temperature=0.0, max_tokens=200, system="Be brief.", variables={"domain": "a bird"}).body(
        Turn(0, 0, 0)
    )
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("some", 0.0, 200)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "blue jay" in body["messages"][-1]["content"]
    assert "a bird" in body["messages"][-1]["content"]
    assert body["response_format"]["type"] == "json_schema"
    assert "response_format" not in interview(mode="text").body(Turn(0, 0, 0))
    assert "JSON object" in interview(mode="text").body(Turn(0, 0, 0))["messages"][-1]["content"]


def test_openai_itself_is_told_the_limit_by_its_newer_name():
    asked = OpenAIDescriptors(model="some", max_tokens=200)
    body = Interview("jay", Asking(asked, read_prompt("field_marks"), "schema")).body(Turn(0, 0, 0))
    assert body["max_completion_tokens"] == 200
    assert "max_tokens" not in body


@given(order=st.randoms(use_true_random=False), good=st.integers(0, 40), per_class=st.integers(1, 20))
def test_what_is_asked_does_not_depend_on_the_order_of_the_answers(order: random.Random, good: int, per_class: int):
    def said(turn: Turn) -> dict:
        number = 7 * turn.question + 3 * turn.sample + 5 * turn.attempt
        return (
            answer(content="prose")
            if (number * 31) % 41 > good
            else answer(content=f'{{"descriptors": ["m{number}"]}}')
        )

    def asked(pick) -> set[Turn]:
        one, seen = interview("cupl", per_class=per_class), set()
        flying: list[Turn] = []
        while flying or one.lacking():
            flying += [turn for turn in one.lacking() if turn not in seen]
            seen.update(flying)
            one.note(turn := flying.pop(pick(len(flying))), said(turn))
        return seen

    assert asked(lambda count: 0) == asked(order.randrange)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_class_is_never_asked_more_often_than_its_attempts(attempts):
    one = interview(attempts=attempts)
    asked = 0
    while turns := one.lacking():
        asked += len(turns)
        one.note(turns[0], answer("one mark alone"))
    assert asked == attempts


@pytest.mark.parametrize(("told", "sent"), [("prompt", 0.99), ("server", None), (0.0, 0.0), (1, 1)])
def test_a_temperature_is_the_jobs_the_prompts_or_none(told, sent):
    assert interview("cupl", temperature=told).body(Turn(0, 0, 0)).get("temperature") == sent


def test_a_key_goes_to_openai_and_azure_and_elsewhere_only_where_it_is_named():
    def variable(**settings) -> str:
        return OpenAIDescriptors(model="some", **settings).variable_of_key

    assert variable() == variable(base_url="https://api.openai.com/v1") == "OPENAI_API_KEY"
    assert variable(base_url="https://mine.openai.azure.com", api_version="2024-10-21") == "OPENAI_API_KEY"
    assert variable(base_url="http://here/v1") == ""
    assert variable(base_url="http://here/v1", key_variable="MINE") == "MINE"
