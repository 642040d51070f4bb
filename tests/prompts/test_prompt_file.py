"""Prompts: those that ship read well with and without a domain, and a file of the user's own is read or refused."""

from __future__ import annotations

import json
import re

import pytest

from prompts.answers import parse_answer
from prompts.clean_up import clean_descriptors
from prompts.phrasing import which_clause
from prompts.prompt_file import check_prompt, check_variables, conversations, read_prompt, shipped_prompts

SHIPPED = ["field_marks", "clip_d", "contrast", "cupl"]
MINE = """
version: 3
form: attributes
answer: texts
system: Be short.
variables: {season: winter, place: null}
samples: 2
temperature: 0.5
examples:
  - {question: "A lighthouse?", answer: [red and white tower, lamp behind glass]}
questions:
  - "{count} marks of {class} in {season} in {place}, as {{json}}?"
  - |
    Marks of {class}?
    Not of: {similar}
"""


def write(folder, text: str = MINE, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def spoken(prompt, **more) -> list[str]:
    given = {"count": 9, "values": {}} | more
    return [messages[-1]["content"] for messages in conversations(prompt, "blue_jay", **given)]


def test_four_prompts_ship_and_the_default_comes_first():
    assert shipped_prompts() == SHIPPED
    prompts = [read_prompt(name) for name in SHIPPED]
    assert [prompt.form for prompt in prompts] == ["attributes", "attributes", "attributes", "sentences"]
    assert [prompt.answer for prompt in prompts] == ["marks", "texts", "marks", "texts"]
    assert [prompt.needs_similar for prompt in prompts] == [False, False, True, False]
    assert all(dict(prompt.variables) == {"domain": ""} for prompt in prompts)
    assert len({prompt.digest for prompt in prompts}) == 4


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("domain", ["", "a species of bird"])
def test_a_prompt_that_ships_reads_well_with_and_without_a_domain(name, domain):
    for question in spoken(read_prompt(name), values={"domain": domain}, similar=["gray_jay", "raven"]):
        assert "blue jay" in question
        assert ("a species of bird" in question) == bool(domain)
        assert ("What it is:" in question) == bool(domain)
        assert not re.search(r"[{}_]|\n\n\n", question)
        assert question == question.strip()


def test_field_marks_asks_for_all_the_descriptors_in_one_question():
    (question,) = spoken(read_prompt("field_marks"), count=9)
    assert "Marks wanted: 9" in question


def test_contrast_names_the_similar_classes_as_they_are_spoken_and_does_without_them_where_there_are_none():
    prompt = read_prompt("contrast")
    assert "Easily taken for it: gray jay, raven\n" in spoken(prompt, similar=["gray_jay", "raven"])[0]
    assert "taken for" not in spoken(prompt)[0]


def test_cupl_asks_several_questions_several_times_with_much_variety_and_each_for_its_share():
    prompt = read_prompt("cupl")
    assert (len(prompt.questions), prompt.samples, prompt.temperature) == (5, 2, 0.99)
    assert all("Sentences wanted: 5," in question for question in spoken(prompt, count=50))
    assert all("Sentences wanted: 1," in question for question in spoken(prompt, count=9))


def test_clip_d_shows_two_examples_before_it_asks_and_is_drawn_cold():
    prompt = read_prompt("clip_d")
    (messages,) = conversations(prompt, "blue_jay", count=9, values={})
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert prompt.temperature == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_examples_of_a_prompt_are_answers_that_are_read_kept_and_complete_the_sentence(name):
    prompt = read_prompt(name)
    for _, answer in prompt.examples:
        given = parse_answer(answer, prompt.answer)
        kept, dropped = clean_descriptors(
            {"it": given}, form=prompt.form, most=None, max_tokens=None, count_tokens=lambda texts: [0] * len(texts)
        )
        assert (kept["it"], dropped) == (given, [])
        assert all(which_clause(descriptor.text).startswith("which has ") for descriptor in given)


@pytest.mark.parametrize("name", SHIPPED)
def test_without_a_schema_the_question_says_which_json_to_answer_with(name):
    prompt = read_prompt(name)
    for with_schema, without in zip(spoken(prompt), spoken(prompt, structured=False), strict=True):
        added = without.removeprefix(with_schema)
        assert added.startswith("\n\nAnswer with one JSON object")
        example = added[added.index("{") :]
        assert parse_answer(example, prompt.answer)


def test_a_file_of_the_users_own_says_everything_and_lines_without_values_are_left_out(tmp_path):
    prompt = read_prompt(write(tmp_path))
    assert (prompt.version, prompt.samples, prompt.temperature, prompt.needs_similar) == (3, 2, 0.5, True)
    first, second = conversations(prompt, "blue_jay", count=9, values={"place": "snow"})
    assert first == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "A lighthouse?"},
        {"role": "assistant", "content": json.dumps({"descriptors": ["red and white tower", "lamp behind glass"]})},
        {"role": "user", "content": "3 marks of blue jay in winter in snow, as {json}?"},
    ]
    assert second[-1]["content"] == "Marks of blue jay?"


def test_a_jobs_system_prompt_takes_the_place_of_the_files_and_an_empty_one_sends_none(tmp_path):
    prompt = read_prompt(write(tmp_path))
    said = [conversations(prompt, "x", count=1, values={"place": "snow"}, system=s)[0][0] for s in (None, "Hm.", "")]
    assert [(message["role"], message["content"]) for message in said] == [
        ("system", "Be short."),
        ("system", "Hm."),
        ("user", "A lighthouse?"),
    ]


def test_names_and_values_may_hold_braces(tmp_path):
    prompt = read_prompt(write(tmp_path))
    assert (
        "of a {b} in winter in {count}"
        in conversations(prompt, "a_{b}", count=1, values={"place": "{count}"})[0][-1]["content"]
    )


def test_variables_that_are_missing_or_unknown_are_told_with_those_there_are(tmp_path):
    prompt = read_prompt(write(tmp_path))
    assert check_variables(prompt, {"place": "snow"}) == {"season": "winter", "place": "snow"}
    with pytest.raises(ValueError, match=r"mine\.yaml' needs a value for its variable 'place'"):
        check_variables(prompt, {})
    with pytest.raises(ValueError, match="has no variable 'domain' to set; it takes: season, place"):
        check_variables(prompt, {"domain": "birds"})


def test_the_digest_follows_what_is_said_and_not_where_the_file_lies(tmp_path):
    digest = read_prompt(write(tmp_path)).digest
    assert read_prompt(write(tmp_path, name="copy.yaml")).digest == digest
    changes = [("winter", "summer"), ("samples: 2", "samples: 3"), ("Be short", "Be kind"), ("lamp", "light")]
    changes += [("version: 3", "version: 4"), ("Not of", "Not"), ("form: attributes", "form: sentences")]
    changed = {read_prompt(write(tmp_path, MINE.replace(*change))).digest for change in changes}
    assert len(changed | {digest}) == len(changes) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version: 3", "version: 0"), "version: input should be greater than or equal to 1, found '0'"),
        (("version: 3\n", ""), "version: is missing"),
        (("version: 3", "versions: 3"), "is missing|versions: no such key; there are version, form, answer, questions"),
        (("form: attributes", "form: words"), "form: input should be 'sentences' or 'attributes', found 'words'"),
        (("answer: texts", "answer: lists"), "answer: input should be 'marks' or 'texts', found 'lists'"),
        (("answer: texts", "answer: marks"), r"examples, number 1: answer: a list of {aspect, text} pairs is needed"),
        (("lamp behind glass", "7"), "examples, number 1: answer: a list of texts is needed"),
        (("temperature: 0.5", "temperature: 3"), "temperature: input should be less than or equal to 2"),
        (("samples: 2", "samples: true"), "samples: input should be a valid integer, found 'True'"),
        (("{season}", "{seasn}"), r"questions, number 1: has \{seasn\}; allowed: \{class\}, \{count\}, \{similar\}, "),
        (("{season}", "{season!r}"), r"questions, number 1: has \{season\}; allowed"),
        (("{season}", "{"), "questions, number 1: .*a literal brace is doubled"),
        (("{season}", "it"), r"variables: no question uses \{season\}; use it or take it out"),
        (("Marks of {class}", "Marks"), r"questions, number 2: has no \{class\} and would ask the same of every class"),
        (("season: winter", "count: '9'"), "variables: 'count' cannot be one; a name of small letters"),
        (("season: winter", "Season: winter"), "variables: 'Season' cannot be one"),
        (("samples: 2", "version: 2"), "'version' stands there twice"),
        ((MINE, "- 1"), "a prompt file is a mapping with the keys version, form, answer, questions"),
        ((MINE, "questions: ["), "a prompt file is YAML"),
        ((MINE, MINE[: MINE.index("questions")] + "questions: []"), "questions: list should have at least 1 item"),
    ],
)
def test_a_wrong_prompt_file_is_refused_by_file_and_key_with_what_is_allowed(tmp_path, change, message):
    assert change[0] in MINE
    path = write(tmp_path, MINE.replace(*change))
    with pytest.raises(ValueError, match=message) as refused:
        read_prompt(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_and_a_name_that_nothing_has_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read: No such file"):
        read_prompt(str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match=r"a prompt file ends in \.yaml or \.yml"):
        read_prompt(write(tmp_path, name="mine.txt"))
    with pytest.raises(ValueError, match=r"no prompt is called 'fieldmarks'; did you mean 'field_marks'\? there are "):
        check_prompt("fieldmarks")
    (tmp_path / "latin.yaml").write_bytes(b"system: \xe9")
    with pytest.raises(ValueError, match=r"latin\.yaml: is not UTF-8 text \(byte 8\)"):
        read_prompt(str(tmp_path / "latin.yaml"))
    assert check_prompt("field_marks") == "field_marks"
    assert check_prompt("mine.yaml") == "mine.yaml"
