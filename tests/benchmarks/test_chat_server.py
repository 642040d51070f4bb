"""The server that others' tests ask: what it counts, its scripts, and that it answers as it is asked."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request

import pytest

from benchmarks import describe_latency
from benchmarks.chat_server import ChatServer, cut_in_body, failing, no_structured_output, rate_limited, saying


def post(server: ChatServer, text: str, key: str = "", **body) -> dict:
    body = {"model": "test-model", "messages": [{"role": "user", "content": text}], **body}
    headers = {"authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{server.base_url}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


def content(server: ChatServer, text: str, **body) -> str:
    return post(server, text, **body)["choices"][0]["message"]["content"]


def schema(items: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"schema": {"properties": {"descriptors": {"items": items}}}}}


def test_answers_have_the_count_and_the_form_that_are_asked_for_and_are_the_same_again():
    with ChatServer() as server:
        texts = json.loads(content(server, "7 marks of a wren", response_format=schema({"type": "string"})))
        assert len(set(texts["descriptors"])) == 7
        marks = json.loads(content(server, "7 marks of a wren", response_format=schema({"$ref": "#/$defs/Mark"})))
        assert [mark["text"] for mark in marks["descriptors"]] == texts["descriptors"]
        assert all(mark["aspect"] in mark["text"] for mark in marks["descriptors"])
        bullets = content(server, "7 marks of a wren")
        assert bullets.splitlines() == [f"- {text}" for text in texts["descriptors"]]
        assert content(server, "7 marks of a jay") != bullets
        many = [content(server, f"9 marks of bird no. {number}?").splitlines() for number in "abcdefghijklmnopqrst"]
    assert len({text for texts in many for text in texts}) == 180


def test_misbehaviour_lasts_as_often_as_asked_and_where_it_is_asked_for():
    with ChatServer() as server:
        server.misbehave(failing(503), times=1, about="wren")
        server.misbehave(saying("no"), about="jay")
        server.misbehave(rate_limited("7"), times=1)
        with pytest.raises(urllib.error.HTTPError) as limited:
            post(server, "an owl")
        assert (limited.value.code, limited.value.headers["retry-after"]) == (429, "7")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            post(server, "a wren")
        assert content(server, "a wren").count("\n") == 4
        assert [content(server, "a jay") for _ in range(2)] == ["no", "no"]
        server.behave()
        assert content(server, "a jay") != "no"
        assert [asked.last for asked in server.asked] == ["an owl", "a wren", "a wren", "a jay", "a jay", "a jay"]


def test_a_cut_answer_a_refused_format_a_stranger_and_an_unknown_model_are_told_apart():
    with ChatServer(key="right") as server:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(server, "a wren", key="wrong")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(server, "a wren", key="right", model="other")
        server.misbehave(cut_in_body(), times=1)
        with pytest.raises(Exception, match="IncompleteRead"):
            post(server, "a wren", key="right")
        server.misbehave(no_structured_output())
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(server, "a wren", key="right", response_format={"type": "json_object"})
        assert post(server, "a wren", key="right")["usage"]["completion_tokens"] > 10


def test_the_most_at_once_are_counted_and_models_are_listed():
    with ChatServer(models=("a", "b"), latency=0.2) as server:
        threads = [threading.Thread(target=post, args=(server, "x"), kwargs={"model": "a"}) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with urllib.request.urlopen(f"{server.base_url}/models") as response:
            assert [model["id"] for model in json.loads(response.read())["data"]] == ["a", "b"]
    assert len(server.asked) == 5
    assert 2 <= server.most_at_once <= 5


def test_no_answer_comes_before_the_server_could_give_it():
    assert describe_latency.latency_ratio(classes=6, descriptors=3, latency=0.02, at_once=3) >= 1
