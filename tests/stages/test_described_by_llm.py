"""Descriptors from a language model: a real client, server and Ray; nothing is paid twice."""

from __future__ import annotations

import json
import shutil
import traceback
from pathlib import Path

import pytest

from benchmarks import chat_server
from benchmarks.chat_answers import good_answer
from benchmarks.chat_server import ChatServer
from prompts.chat import Refused, Spent
from stages.asking_estimate import estimate_asking
from stages.describe import Describe
from stages.described import read_descriptors
from stages.descriptor_settings import DescribeSettings, OpenAIDescriptors
from stages.manifest import SCHEMA
from stages.methods import parse_method
from stages.stage import Inputs, Run

CLASSES = ("wren", "blue jay", "owl", "heron", "robin", "swift")
CUPL = parse_method({"name": "cupl", "descriptors": "marks"})


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


class Asked:
    """A store, and a set of descriptors that is asked of a server there."""

    def __init__(self, ray, server: ChatServer, folder: Path, tower: str):
        self.ray, self.server, self.folder, self.tower = ray, server, folder, tower
        self.told: list[str] = []
        self.done = 0

    def plan(self, classes=CLASSES, describe=None, **settings):
        chosen = {"model": "test-model", "base_url": self.server.base_url, "per_class": 4} | settings
        inputs = Inputs(str(self.folder), SCHEMA.empty_table(), dict(zip(classes, classes, strict=True)), {})
        describe = DescribeSettings(**describe or {})
        return Describe({"marks": OpenAIDescriptors(**chosen)}, [CUPL], describe, self.tower), inputs

    def table(self, *args, **settings):
        stage, inputs = self.plan(*args, **settings)
        return stage.tables(inputs)[0]

    def run(self, *args, **settings) -> dict[str, list[str]]:
        stage, inputs = self.plan(*args, **settings)
        stage.compute(stage.tables(inputs), inputs, Run("run1", self._advance, lambda: self.ray, tell=self.told.append))
        (table,) = stage.tables(inputs)
        assert table.complete
        return read_descriptors(table)

    def _advance(self, done: int, rejected: int) -> None:
        self.done += done

    @property
    def questions(self) -> int:
        return len(self.server.asked)


@pytest.fixture
def asked(ray, server, tmp_path) -> Asked:
    return Asked(ray, server, tmp_path / "store", "ViT-B-16")


def test_each_class_gets_descriptors_and_a_rerun_asks_nothing(asked):
    found = asked.run()
    assert list(found) == list(CLASSES)
    assert all(len(texts) == 4 for texts in found.values())
    assert (asked.questions, asked.done) == (6, 6)
    assert estimate_asking(asked.table().plan).questions == 0
    asked.run()
    assert asked.questions == 6


def test_rows_say_what_each_descriptor_is_of_where_it_is_from_and_what_was_left_out(asked):
    marks = [
        "red bill with a tip",
        "large crest like that of an owl",
        "loud call",
        "red bill with a tip",
        "white throat",
    ]
    said = json.dumps({"descriptors": [{"aspect": "part", "text": text} for text in marks]})
    asked.server.misbehave(chat_server.saying(said), about="wren")
    found = asked.run(attempts=1)
    assert found["wren"] == ["red bill with a tip", "white throat"]
    (row,) = [row for row in asked.table(attempts=1).keeper.read().to_pylist() if row["class"] == "wren"]
    assert row["aspects"] == ["part", "part"]
    assert row["source"].startswith(f"test-model at {asked.server.base_url}, prompt field_marks version")
    assert [each["reason"] for each in row["dropped"]] == ["another class", "not visual", "duplicate"]
    assert any("fewer than 4 descriptors are left of" in line for line in asked.told)


def test_a_new_class_asks_for_that_class_alone(asked):
    asked.run(CLASSES[:5])
    assert estimate_asking(asked.table().plan).questions == 1
    asked.run()
    assert asked.questions == 6
    assert "swift" in asked.server.asked[-1].last


def test_a_crash_after_half_of_the_answers_asks_for_the_other_half_only(asked):
    class Crash(Exception):
        pass

    def advance(done: int, rejected: int) -> None:
        asked.done += done
        if asked.done == 3:
            raise Crash

    stage, inputs = asked.plan(describe={"concurrency": 1})
    with pytest.raises(Crash):
        stage.compute(stage.tables(inputs), inputs, Run("run1", advance, lambda: asked.ray))
    before = asked.questions
    assert 3 <= before < 6
    left = estimate_asking(asked.table().plan)
    assert (left.questions, left.stored) == (6 - before, before)
    asked.run(describe={"concurrency": 1})
    assert asked.questions == 6


def test_another_clean_up_or_setting_of_the_tower_costs_no_question(asked, tmp_path):
    asked.run()
    asked.run(fallback="names")
    assert asked.questions == 6
    asked.run(temperature=0.5)
    assert asked.questions == 12


def test_stores_share_answers_through_a_cache(asked, ray, server, tmp_path):
    cache = {"cache": str(tmp_path / "shared")}
    found = asked.run(describe=cache)
    other = Asked(ray, server, tmp_path / "other", asked.tower)
    assert other.run(describe=cache) == found
    assert asked.questions == 6


@pytest.mark.parametrize(
    ("behaviour", "asked_as"),
    [
        (chat_server.well(), "schema"),
        (chat_server.no_structured_output(), "text"),
        (chat_server.plain(), "text"),
        (lambda asked: chat_server.saying(f"```json\n{good_answer(asked.body)}\n```")(asked), "schema"),
    ],
)
def test_a_server_is_asked_in_the_strictest_form_that_it_keeps_to(asked, behaviour, asked_as):
    asked.server.misbehave(behaviour)
    asked.run(attempts=1)
    formats = {"schema": "json_schema", "json": "json_object", "text": None}
    last = asked.server.asked[-1].body.get("response_format") or {"type": None}
    assert last["type"] == formats[asked_as]
    before = asked.questions
    asked.run((*CLASSES, "jackdaw"), attempts=1)
    assert asked.questions == before + 1, "what the server takes is remembered"


@pytest.mark.parametrize(
    "behaviour",
    [
        chat_server.saying(""),
        chat_server.saying('{"descriptors": [{"aspect": "bill", "te'),
        chat_server.saying('{"marks": ["a bill"]}'),
        chat_server.saying("a cut", finish_reason="length"),
        chat_server.refusing(),
        chat_server.few(1),
        chat_server.cut_in_body(),
        chat_server.failing(503),
        chat_server.rate_limited(retry_after="0.05"),
        chat_server.html(),
    ],
    ids=["empty", "truncated", "schema", "length", "refusal", "few", "cut", "503", "429", "html"],
)
def test_what_goes_wrong_once_is_asked_again_and_costs_nobody_else(asked, behaviour):
    asked.server.misbehave(behaviour, times=1, about="owl")
    found = asked.run()
    assert all(len(texts) == 4 for texts in found.values())
    assert asked.questions == 7


def test_a_form_that_the_server_takes_no_more_is_found_out_anew(asked):
    asked.run()
    asked.server.misbehave(chat_server.no_structured_output())
    before = asked.run()
    count = asked.questions
    found = asked.run((*CLASSES, "jackdaw"))
    assert len(found["jackdaw"]) == 4
    assert [asked.server.asked[number].last.partition("\n")[0] for number in range(count, asked.questions)] == (
        ["Name: jackdaw"] * (asked.questions - count)
    ), "the others have their answers, in the form of before"
    assert {name: found[name] for name in CLASSES} == before
    count = asked.questions
    asked.run((*CLASSES, "jackdaw"), fallback="names")
    assert asked.questions == count
    with pytest.raises(RuntimeError, match=r"descriptors\.marks: .*Set `answers: auto`"):
        asked.run((*CLASSES, "jackdaw", "magpie"), answers="schema")


def test_a_first_answer_that_proves_nothing_decides_nothing_for_good(asked):
    asked.server.misbehave(chat_server.saying(""), times=1)
    asked.server.misbehave(chat_server.plain())
    found = asked.run()
    assert all(len(texts) == 4 for texts in found.values())
    before = asked.questions
    asked.run((*CLASSES, "jackdaw"))
    assert asked.server.asked[-1].body.get("response_format") is None
    assert asked.questions > before


def test_nothing_more_is_asked_where_no_answer_can_be_read(asked):
    asked.server.misbehave(chat_server.saying("a cut", finish_reason="length"))
    classes = [f"bird number {number}" for number in range(40)]
    with pytest.raises(RuntimeError, match=r"none of 10 answers of test-model can be read.*cut off"):
        asked.run(classes, describe={"concurrency": 2})
    assert asked.questions < 16


def test_answers_of_before_are_shared_once_a_cache_is_named_and_stay_when_it_goes(asked, ray, server, tmp_path):
    found = asked.run()
    shared = tmp_path / "shared"
    asked.run(describe={"cache": str(shared)}, fallback="names")
    other = Asked(ray, server, tmp_path / "other", asked.tower)
    assert other.run(describe={"cache": str(shared)}) == found
    shutil.rmtree(shared)
    assert other.run(fallback="names") == found
    assert asked.questions == 6


def test_a_class_that_clean_up_leaves_nothing_of_is_told_as_such(asked):
    marks = [{"aspect": "call", "text": text} for text in ("a loud song", "a shrill call")]
    asked.server.misbehave(chat_server.saying(json.dumps({"descriptors": marks})), about="owl")
    with pytest.raises(
        RuntimeError, match=r"clean-up left nothing of .* 1 of 6 classes: 'owl': .*2 not visual"
    ) as told:
        asked.run(attempts=1)
    assert "Raise `attempts`" not in str(told.value)
    assert asked.run(attempts=1, fallback="names")["owl"] == ["an owl"]


def test_a_class_without_any_descriptors_is_named_and_gets_templates_only_where_the_job_says_so(asked):
    asked.server.misbehave(chat_server.refusing(), about="owl")
    with pytest.raises(
        RuntimeError, match=r"no descriptors of 1 of 6 classes after 2 attempts: 'owl': the model refused"
    ):
        asked.run(attempts=2)
    assert not asked.table(attempts=2).present
    assert asked.questions == 7
    found = asked.run(attempts=2, fallback="names")
    assert asked.questions == 7
    assert found["owl"] == ["an owl"]
    (said,) = parse_method("clip_d").prompts("owl", found["owl"], "attributes")
    assert said == "owl, which is an owl"
    told = asked.run(attempts=2, fallback="names", prompt="cupl")
    assert told["owl"][0] == "a photo of a owl."
    assert len(found["wren"]) == 4


def test_a_cap_on_tokens_keeps_what_came_and_a_higher_one_goes_on(asked):
    with pytest.raises(Spent, match="max_tokens_total"):
        asked.run(describe={"max_tokens_total": 900, "concurrency": 1})
    before = asked.questions
    assert 0 < before < 6
    with pytest.raises(Spent):
        asked.run(describe={"max_tokens_total": 900, "concurrency": 1})
    assert asked.questions == before, "answers that are stored count"
    asked.run(describe={"max_tokens_total": 100_000})
    assert asked.questions == 6


def test_a_wrong_key_stops_at_once_and_is_nowhere(asked, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    asked.server.misbehave(chat_server.wrong_key())
    with pytest.raises(Refused, match="MY_KEY") as caught:
        asked.run(key_variable="MY_KEY")
    assert "very-secret" not in "".join(traceback.format_exception(caught.value))
    asked.server.behave()
    asked.run(key_variable="MY_KEY")
    assert asked.server.asked[-1].headers["authorization"] == "Bearer sk-very-secret"
    written = [path for path in asked.folder.rglob("*") if path.is_file()]
    assert written
    assert not any(b"very-secret" in path.read_bytes() for path in written)


def test_an_estimate_is_told_in_questions_and_tokens(asked):
    before = estimate_asking(asked.table().plan)
    assert (before.questions, before.stored) == (6, 0)
    asked.run(CLASSES[:4])
    after = estimate_asking(asked.table().plan)
    assert (after.questions, after.stored) == (2, 4)
    spent = sum(len(json.dumps(each.body["messages"])) // 4 for each in asked.server.asked)
    assert before.prompt_tokens == pytest.approx(spent * 6 / 4, rel=0.3)
    assert 0 < after.completion_tokens < before.completion_tokens * 2


def test_a_prompt_that_lacks_a_value_is_refused_before_anything_is_asked(asked, tmp_path):
    prompt = tmp_path / "own.yaml"
    prompt.write_text(
        "version: 1\nform: sentences\nanswer: texts\nquestions: ['{class} in {place}?']\nvariables: {place: null}\n"
    )
    with pytest.raises(ValueError, match=r"descriptors\.marks: prompt .* needs a value for its variable 'place'"):
        asked.table(prompt=str(prompt))
    found = asked.run(prompt=str(prompt), variables={"place": "snow"})
    assert "wren in snow?" in asked.server.asked[0].last
    assert len(found["wren"]) == 4
