"""What is read out of a server's response: whatever it holds, what is stored can be stored, and counts something."""

from __future__ import annotations

import json

import pytest

from benchmarks import chat_server
from benchmarks.chat_server import ChatServer, Reply
from prompts.chat import Endpoint, Question, Refused, ask
from prompts.chat_errors import Scrub
from prompts.chat_replies import Again, read_completion
from storage.completions import CompletionStore, completion_key

BODY = {"model": "test-model", "messages": [{"role": "user", "content": "What does a wren look like?"}]}
GUESSED = (len(json.dumps(BODY["messages"])) // 4 + 1, len("a short bill") // 4 + 1)
SECRET = "a-secret/of+34-characters"
DEEP = b'{"error": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer() as server:
        yield server


def document(content="a short bill", refusal=None, finish_reason="stop", **more) -> bytes:
    choice = {"message": {"content": content, "refusal": refusal}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], **more}).encode()


def read(content: bytes, secrets=()):
    return read_completion(content, "application/json", BODY, Scrub(secrets))


def ask_one(server, write=None, endpoint=None, told=None):
    kept = {}
    ask(
        [Question(completion_key(server.base_url, BODY, 0), BODY, 0, "wren")],
        endpoint or Endpoint(server.base_url),
        keep=lambda question, completion: kept.update({question.key: completion}) or (),
        write=write,
        tell=[].append if told is None else told.append,
    )
    return kept


def test_half_a_character_in_an_answer_does_not_keep_it_from_being_stored(server, tmp_path):
    server.misbehave(chat_server.saying("a bill \ud83d", refusal="\ud83d", finish_reason="\ud83d"))
    store = CompletionStore(str(tmp_path))
    kept = ask_one(server, write=lambda question, completion: store.put(question.key, completion, "run"))
    assert store.get_many(kept) == kept
    answer = next(iter(kept.values()))
    assert (answer["content"], answer["refusal"], answer["finish_reason"]) == ("a bill ?", "?", "?")
    assert read(document(model="\ud83d"))["model"] == "?"
    assert read(document("ein Zaunkönig 🐦"))["content"] == "ein Zaunkönig 🐦"


def test_half_a_character_in_a_failure_can_be_stored_and_printed(server):
    filtered = {"error": {"message": "filtered \ud83d", "code": "content_filter"}}
    server.misbehave(lambda asked: Reply(json.dumps(filtered).encode(), 400))
    assert [answer["refusal"] for answer in ask_one(server).values()] == ["filtered ?"]


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        [7, 9],
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -7, "completion_tokens": -9},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": "7", "completion_tokens": 9.0},
    ],
)
def test_where_a_server_counts_no_tokens_four_characters_are_one(usage):
    answer = read(document(usage=usage))
    assert (answer["prompt_tokens"], answer["completion_tokens"]) == GUESSED


def test_counts_that_a_server_tells_are_taken():
    answer = read(document(usage={"prompt_tokens": 7, "completion_tokens": 9}))
    assert (answer["prompt_tokens"], answer["completion_tokens"]) == (7, 9)


def test_json_that_is_nested_too_deep_is_a_failure_like_others(server):
    assert isinstance(read(DEEP), Again)
    server.misbehave(lambda asked: Reply(DEEP), times=1)
    assert len(ask_one(server, told=(told := []))) == 1
    assert "is asked again about 'wren'" in told[0]
    server.misbehave(lambda asked: Reply(DEEP, 400))
    with pytest.raises(Refused, match="answered 400: "):
        ask_one(server)
    for depth in range(600, 1100, 20):  # what can be read, but perhaps not written
        nested = DEEP[:10] + b"[" * depth + b"]" * depth + b"}"
        assert isinstance(read(nested), Again)


def test_a_key_that_comes_back_in_an_answer_is_not_stored(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    long = "an sk-like bill *** Bearer of news, " * 20

    def echo(asked):
        key = asked.headers["authorization"].removeprefix("Bearer ")
        return chat_server.saying(f"{long}{key}", refusal=f"no: {key}", finish_reason=key)(asked)

    server.misbehave(echo)
    (answer,) = ask_one(server, endpoint=Endpoint(server.base_url, "MY_KEY")).values()
    assert answer["content"] == f"{long}(key)"
    assert (answer["refusal"], answer["finish_reason"]) == ("no: (key)", "(key)")
    assert read(document(model=f"m {SECRET}"), [SECRET])["model"] == "m (key)"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (402, r"\. The quota of a request without a key is used up: add credit"),
        (403, r"\. A request without a key may not use the model 'test-model' there"),
    ],
)
def test_where_no_variable_holds_a_key_none_is_named(server, status, words):
    server.misbehave(chat_server.failing(status, "no"))
    with pytest.raises(Refused, match=words):
        ask_one(server, endpoint=Endpoint(server.base_url, key_variable=""))
    with pytest.raises(Refused, match=r"^https://api\.openai\.com/v1 needs a key: put one into an environment var"):
        ask_one(server, endpoint=Endpoint(key_variable=""))
