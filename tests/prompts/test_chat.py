"""The client against a real server of the protocol in this process, which misbehaves when asked to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from benchmarks import chat_server
from benchmarks.chat_server import ChatServer
from prompts.chat import Endpoint, Question, Refused, Spent, Totals, Unanswered, Unsupported, ask

CLASSES = ("wren", "jay", "robin", "owl", "finch", "swift", "heron", "egret")
SECRET = "sk-proj/very+secret=key"
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "a", "schema": {"properties": {"descriptors": {"items": {"type": "string"}}}}},
}


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


def question(about: str, repeat: int = 0, **body) -> Question:
    message = {"role": "user", "content": f"What does a {about} look like? Say 3 things."}
    return Question(f"{about}/{repeat}", {"model": "test-model", "messages": [message], **body}, repeat, about)


class Kept(dict):
    """What was kept, by key."""

    def __call__(self, question, completion):
        self[question.key] = completion
        return ()


def ask_about(server, about=CLASSES, **settings) -> tuple[Kept, Totals]:
    kept, told = Kept(), settings.pop("told", [])
    endpoint = settings.pop("endpoint", None) or Endpoint(server.base_url)
    settings = {"keep": kept, "tell": told.append, **settings}
    return kept, ask((question(name) for name in about), endpoint, **settings)


def test_every_question_is_answered_and_counted(server):
    kept, totals = ask_about(server)
    assert set(kept) == {f"{name}/0" for name in CLASSES}
    answer = kept["wren/0"]
    assert answer["content"].count("\n") == 2
    assert (answer["finish_reason"], answer["model"], answer["refusal"]) == ("stop", "test-model", None)
    assert datetime.fromisoformat(answer["asked"]).tzinfo is not None
    assert totals.answers == 8
    assert totals.retries == 0
    assert totals.completion_tokens == sum(answer["completion_tokens"] for answer in kept.values()) > 100
    assert totals.prompt_tokens == sum(answer["prompt_tokens"] for answer in kept.values()) > 50


def test_the_body_is_sent_as_it_is_with_settings_that_only_some_servers_know(server):
    body = {"temperature": 0.5, "seed": 3, "max_tokens": 50, "options": {"num_ctx": 4096}}
    ask([asked := question("wren", **body)], Endpoint(server.base_url), keep=Kept(), tell=print)
    assert server.asked[0].body == asked.body


def test_no_more_than_asked_fly_at_once_and_as_many_do():
    with ChatServer(latency=0.1) as server:
        ask_about(server, [f"bird {number}" for number in range(24)], concurrency=6)
    assert server.most_at_once == 6


def test_questions_are_drawn_as_they_can_be_asked(server):
    drawn, most = 0, 0

    def questions():
        nonlocal drawn
        for name in CLASSES * 3:
            drawn += 1
            yield question(f"{name} {drawn}")

    def keep(question, completion):
        nonlocal most
        kept(question, completion)
        most = max(most, drawn - len(kept))
        return ()

    kept = Kept()
    ask(questions(), Endpoint(server.base_url), keep=keep, concurrency=2, tell=print)
    assert len(kept) == 24
    assert most <= 2


def test_what_keep_returns_is_asked_next(server):
    def keep(asked, completion):
        kept(asked, completion)
        return [question(asked.about, asked.repeat + 1)] if asked.repeat < 2 else []

    kept = Kept()
    ask([question("wren"), question("jay")], Endpoint(server.base_url), keep=keep, tell=print)
    assert set(kept) == {f"{name}/{repeat}" for name in ("wren", "jay") for repeat in range(3)}


def test_nothing_to_ask_needs_no_key():
    assert ask([], Endpoint(), keep=Kept(), tell=print) == Totals(0, 0, 0, 0, 0.0)


def test_what_may_pass_is_asked_again_until_it_has_passed(server):
    server.misbehave(chat_server.failing(500), about="wren", times=1)
    server.misbehave(chat_server.failing(503), about="jay", times=1)
    server.misbehave(chat_server.failing(408), about="owl", times=1)
    server.misbehave(chat_server.cut(), about="robin", times=1)
    server.misbehave(chat_server.cut_in_body(), about="finch", times=1)
    server.misbehave(chat_server.truncated_json(), about="swift", times=1)
    server.misbehave(chat_server.html(), about="heron", times=1)
    server.misbehave(chat_server.no_http(), about="egret", times=1)
    told = []
    kept, totals = ask_about(server, told=told)
    assert len(kept) == 8
    assert totals.retries == 8
    assert len(server.asked) == 16
    reasons = {line.split("'")[1]: line.partition("': ")[2] for line in told}
    assert reasons["wren"] == "it answered 500: The server had an error"
    assert reasons["swift"].startswith('it answered application/json that is no JSON: {"id"')
    assert (
        reasons["heron"]
        == "it answered text/html; charset=utf-8 that is no JSON: <!doctype html><title>Welcome</title>"
    )
    assert all(reasons[name].startswith("the connection failed (") for name in ("robin", "finch", "egret"))


def test_an_answer_that_takes_too_long_is_given_up_and_asked_again(server):
    server.misbehave(chat_server.slow(60), times=1)
    kept, _ = ask_about(server, ["wren"], endpoint=Endpoint(server.base_url, timeout=0.4), told=(told := []))
    assert list(kept) == ["wren/0"]
    assert told[0] == f"{server.base_url} is asked again about 'wren': it did not answer within 0.4 s"


def test_what_a_model_says_amiss_is_an_answer_that_was_paid_for(server):
    server.misbehave(chat_server.saying(""), about="wren")
    server.misbehave(chat_server.refusing("Not about owls."), about="owl")
    server.misbehave(chat_server.saying('{"descr', finish_reason="length"), about="jay")
    server.misbehave(chat_server.few(1), about="robin")
    server.misbehave(chat_server.filtered(), about="finch")
    kept, totals = ask_about(server, ("wren", "owl", "jay", "robin", "finch"))
    assert kept["wren/0"]["content"] == ""
    assert (kept["owl/0"]["content"], kept["owl/0"]["refusal"]) == (None, "Not about owls.")
    assert (kept["jay/0"]["content"], kept["jay/0"]["finish_reason"]) == ('{"descr', "length")
    assert kept["robin/0"]["content"].count("\n") == 0
    assert kept["finch/0"]["finish_reason"] == "content_filter"
    assert "content management policy" in kept["finch/0"]["refusal"]
    assert len(server.asked) == totals.answers == 5


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
def test_after_429_nobody_asks_before_the_time_that_the_server_wishes(server, form):
    def limited(asked):
        moment = datetime.now(timezone.utc) + timedelta(seconds=1.2)  # a date has whole seconds
        date = format_datetime(moment, usegmt=True)
        until.append(time.monotonic() + {"seconds": 0.3, "milliseconds": 0.2, "date": 0.1}[form])
        wish = {"seconds": {"retry_after": "0.3"}, "milliseconds": {"retry_after_ms": "200"}}
        return chat_server.rate_limited(**wish.get(form, {"retry_after": date}))(asked)

    until, told = [], []
    server.misbehave(limited, times=2)
    kept, totals = ask_about(server, concurrency=2, told=told)
    assert len(kept) == 8
    assert totals.retries == 2
    assert all(asked.at >= max(until) for asked in server.asked[2:])
    assert len(told) == 2
    assert "Rate limit reached" in told[0]


def test_pauses_for_everybody_are_no_failures_of_one_question(server):
    def questions():
        yield question("wren")
        while "wren/0" not in kept:
            yield question(f"bird {len(kept)}", len(server.asked))

    def late(asked):  # so that another is answered before
        return replace(chat_server.rate_limited(retry_after_ms="1")(asked), wait=0.05)

    kept = Kept()
    server.misbehave(late, about="wren", times=6)
    totals = ask(questions(), Endpoint(server.base_url), keep=kept, concurrency=2, attempts=3, tell=print)
    assert totals.retries == 6
    assert totals.answers == len(kept) > 6


def test_a_pause_that_outlasts_patience_stops_at_once(server):
    server.misbehave(chat_server.rate_limited(retry_after="86400"))
    with pytest.raises(Refused, match="pause of 1440 minutes: run again then"):
        ask_about(server, ["wren"])


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (chat_server.wrong_key(), r"answered 401: .*It wants a key, and .* OPENAI_API_KEY is not set"),
        (chat_server.failing(403, "no"), r"answered 403: no\. The key in OPENAI_API_KEY may not use .*'test-model'"),
        (
            chat_server.unknown_model(),
            r"answered 404: .*no model 'test-model', or base_url .* Of its 1 models the nearest in name: test-model\.",
        ),
        (chat_server.out_of_quota(), r"answered 429: .*quota of the key in OPENAI_API_KEY is used up"),
        (chat_server.failing(402, "no balance"), r"answered 402: no balance\. The quota of the key in OPENAI_API_KEY"),
        (chat_server.failing(400, "temperature too high"), r"400: temperature too high.*'wren' with .*temperature=9"),
    ],
)
def test_what_will_not_pass_stops_at_once_and_says_what_to_do(server, behaviour, words):
    server.misbehave(behaviour)
    with pytest.raises(Refused, match=words) as refused:
        ask([question("wren", temperature=9)] * 50, Endpoint(server.base_url), keep=Kept(), concurrency=4, tell=print)
    assert server.base_url in str(refused.value)
    assert len(server.asked) <= 4


def test_a_key_that_is_not_taken_is_named_by_its_variable(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some-wrong-key")
    server.misbehave(chat_server.wrong_key())
    with pytest.raises(Refused, match="It does not accept the key in OPENAI_API_KEY"):
        ask_about(server)
    with pytest.raises(Refused, match="It wants a key: put one into an environment variable, and name that"):
        ask_about(server, endpoint=Endpoint(server.base_url, key_variable=""))


def test_what_had_arrived_before_a_refusal_is_kept(server):
    server.misbehave(chat_server.unknown_model(), about="heron")
    kept = Kept()
    with pytest.raises(Refused):
        ask_about(server, keep=kept, concurrency=1)
    assert list(kept) == [f"{name}/0" for name in CLASSES[:6]]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_structured_output_is_told_apart(server, status):
    unsupported = chat_server.no_structured_output()
    if status == 422:
        unsupported = chat_server.failing(422, "extra field: body.response_format")
    server.misbehave(unsupported)
    with pytest.raises(Unsupported, match="response_format"):
        ask([question("wren", response_format=FORMAT)], Endpoint(server.base_url), keep=Kept(), tell=print)
    assert len(server.asked) == 1


def test_a_question_that_gets_no_answer_does_not_keep_others_from_theirs(server):
    server.misbehave(chat_server.failing(500, "out of luck"), about="jay")
    kept = Kept()
    with pytest.raises(
        Unanswered, match=r"no answer about 'jay' in 2 attempts: it answered 500: out of luck"
    ) as failed:
        ask_about(server, keep=kept, concurrency=1, attempts=2)
    assert set(kept) == {f"{name}/0" for name in CLASSES if name != "jay"}
    assert [one.about for one in failed.value.questions] == ["jay"]
    assert len(server.asked) == 9


def test_a_server_that_answers_nobody_is_left_alone(server):
    server.misbehave(chat_server.html())
    with pytest.raises(Unanswered, match=r"text/html.* that is no JSON: <!doctype html>"):
        ask_about(server, CLASSES * 5, concurrency=2, attempts=2)
    assert len(server.asked) <= 10


def test_where_nobody_listens_the_address_is_told():
    with pytest.raises(Unanswered, match=r"http://127\.0\.0\.1:1/v1 gave no answer .* the connection failed"):
        ask_about(None, ["wren"], endpoint=Endpoint("http://127.0.0.1:1/v1"), attempts=1)


def test_asking_stops_before_the_cap_and_what_flew_is_kept(server):
    _, whole = ask_about(server)
    each = (whole.prompt_tokens + whole.completion_tokens) / 8
    kept, cap = Kept(), round(each * 4.5) + 1000
    with pytest.raises(Spent, match=r"max_tokens_total is 1,\d+, and .* 5 answers came and are stored"):
        ask_about(server, keep=kept, concurrency=1, max_tokens_total=cap, spent=1000)
    assert len(kept) == 5
    kept.clear()
    with pytest.raises(Spent):
        ask_about(server, CLASSES * 5, keep=kept, concurrency=2, max_tokens_total=round(each * 20))
    assert sum(one["prompt_tokens"] + one["completion_tokens"] for one in kept.values()) <= each * 22
    kept.clear()
    with pytest.raises(Spent):
        ask_about(server, CLASSES * 5, keep=kept, max_tokens_total=1000)
    assert len(kept) <= 1000 / each + 2
    _, totals = ask_about(server, max_tokens_total=whole.prompt_tokens + whole.completion_tokens)
    assert totals.answers == 8


def test_a_key_goes_to_the_server_and_nowhere_else(server, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", SECRET)
    server.misbehave(chat_server.failing(500, f"oops {SECRET}"), about="jay", times=1)
    server.misbehave(chat_server.no_http(), about="robin", times=1)
    server.misbehave(chat_server.cut(), about="robin", times=1)
    server.misbehave(chat_server.wrong_key(), about="owl")
    told = []
    with caplog.at_level(0), pytest.raises(Refused) as refused:
        ask_about(server, endpoint=Endpoint(server.base_url, "MY_KEY"), concurrency=1, told=told)
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {SECRET}"}
    assert told[0] == f"{server.base_url} is asked again about 'jay': it answered 500: oops (key)"
    assert len(told) == 3
    assert "Incorrect API key provided: (key)" in str(refused.value)
    error: BaseException | None = refused.value
    texts = [caplog.text, *told, *(f"{record.args} {record.__dict__}" for record in caplog.records)]
    texts += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    while error is not None:
        texts += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    assert not [text for text in texts if "secret" in text or SECRET[:12] in text]


def test_a_key_is_needed_for_openai_and_azure_alone(server, monkeypatch):
    for endpoint in (Endpoint(key_variable="MY_KEY"), Endpoint(server.base_url, "MY_KEY", api_version="2024-10-21")):
        with pytest.raises(Refused, match=r"environment variable MY_KEY is not set, and http.* needs a key"):
            ask_about(server, endpoint=endpoint)
    ask_about(server, ["wren"])
    assert len(server.asked) == 1


@pytest.mark.parametrize("value", ["sk-secret\nsk-other", "sk-sécret", "two secrets"])
def test_what_is_no_key_is_told_without_telling_it(server, monkeypatch, value):
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(Refused, match="MY_KEY holds is no key") as refused:
        ask_about(server, endpoint=Endpoint(server.base_url, "MY_KEY"))
    assert "cret" not in str(refused.value)
    assert server.asked == []


def test_azure_is_asked_by_deployment_and_version(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "azure-key")
    endpoint = Endpoint(server.base_url.removesuffix("/v1"), "MY_KEY", api_version="2024-10-21")
    kept, _ = ask_about(server, ["wren"], endpoint=endpoint)
    assert list(kept) == ["wren/0"]
    assert server.asked[0].path == "/openai/deployments/test-model/chat/completions?api-version=2024-10-21"
    assert server.asked[0].headers["api-key"] == "azure-key"
    ask_about(server, ["jay"], endpoint=Endpoint(f"{server.base_url}/?api-version=preview"))
    assert server.asked[1].path == "/v1/chat/completions?api-version=preview"


def test_an_address_has_neither_credentials_nor_query():
    assert Endpoint("https://host:8000/v1/?key=secret").address == "https://host:8000/v1"
    assert Endpoint().address == "https://api.openai.com/v1"
    for wrong in ("localhost:8000/v1", "host/v1", "", "ftp://host/v1"):
        with pytest.raises(ValueError, match="is no address: http"):
            Endpoint(wrong)
    with pytest.raises(ValueError, match=r"https://host/v1 carries credentials: put the key into \$OPENAI_API_KEY"):
        Endpoint("https://me:secret@host/v1")
    with pytest.raises(ValueError, match="Azure, which needs a base_url"):
        Endpoint(api_version="2024-10-21")


def test_after_a_crash_the_rest_alone_is_asked(server):
    kept = Kept()

    def crash_after_half(question, completion):
        if len(kept) == 4:
            raise OSError("disk full")
        return kept(question, completion)

    with pytest.raises(OSError, match="disk full"):
        ask_about(server, keep=crash_after_half, concurrency=1)
    assert len(kept) == 4
    server.asked.clear()
    ask_about(server, [name for name in CLASSES if f"{name}/0" not in kept], keep=kept)
    assert len(kept) == 8
    assert len(server.asked) == 4


def test_answers_are_written_before_they_are_kept_and_a_write_that_fails_stops(server):
    written = []

    def write(question, completion):
        if question.about == "swift":
            raise OSError("no space")
        written.append(question.key)

    def keep(question, completion):
        assert question.key in written
        return kept(question, completion)

    kept = Kept()
    with pytest.raises(OSError, match="no space"):
        ask_about(server, keep=keep, write=write, concurrency=1)
    assert list(kept) == written == [f"{name}/0" for name in CLASSES[:5]]


def test_a_plan_needs_no_client():
    code = "import sys, prompts.chat; print({'openai', 'httpx2', 'aiohttp', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_can_be_called_inside_a_running_loop_and_in_any_thread(server):
    async def inside():
        return ask_about(server, ["wren"])

    found = []
    thread = threading.Thread(target=lambda: found.append(ask_about(server, ["jay"])))
    thread.start()
    found.append(asyncio.run(inside()))
    thread.join()
    assert sorted(key for kept, _ in found for key in kept) == ["jay/0", "wren/0"]
