"""How asking ends before all is answered: after a refusal what was asked is awaited, and Ctrl-C waits for nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks import chat_server
from benchmarks.chat_server import ChatServer
from prompts.chat import Endpoint, Question, Refused, Unsupported, ask

BIRDS = tuple(f"bird {number}." for number in range(40))


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


def question(about: str, **body) -> Question:
    return Question(about, {"model": "test-model", "messages": [{"role": "user", "content": about}], **body}, 0, about)


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (chat_server.failing(400, "not about this bird"), Refused),
        (chat_server.failing(404, "no such model"), Refused),
        (chat_server.failing(400, "no response_format here"), Unsupported),
    ],
)
def test_after_a_refusal_nothing_more_is_asked_and_all_that_was_is_kept(server, refusal, kind):
    kept, told = [], []
    server.misbehave(refusal, about="bird 7.")
    server.misbehave(chat_server.slow(0.3))
    with pytest.raises(kind, match=r"answered 40\d: no"):
        ask(
            (question(name, response_format={"type": "text"}) for name in BIRDS),
            Endpoint(server.base_url),
            keep=lambda asked, completion: kept.append(asked.about) or [question("one more")],
            concurrency=8,
            tell=told.append,
        )
    assert {*BIRDS[:7]} <= {*kept}
    assert sorted([*kept, "bird 7."]) == sorted(asked.last for asked in server.asked)
    assert len(kept) < 39
    assert told == [f"a question was refused: no more are asked, {len(kept)} that are under way are awaited"]


def test_after_a_refusal_nothing_is_asked_again(server):
    server.misbehave(lambda asked: replace(chat_server.failing(400, "no")(asked), wait=0.1), about="jay")
    server.misbehave(chat_server.rate_limited(retry_after="300"), about="wren")  # which the test would wait for
    server.misbehave(lambda asked: replace(chat_server.failing(500)(asked), wait=0.4), about="owl")
    server.misbehave(chat_server.slow(0.4), about="egret")
    kept, names = [], ["egret", "owl", "jay", "wren"]
    with pytest.raises(Refused, match="answered 400: no"):
        ask(
            (question(name) for name in names),
            Endpoint(server.base_url),
            keep=lambda asked, completion: kept.append(asked.about) or (),
            tell=lambda words: None,
        )
    assert kept == ["egret"]
    asked = [one.last for one in server.asked]
    assert len(asked) == len({*asked}) >= 3


def test_a_keep_that_fails_after_a_refusal_ends_the_wait(server):
    def keep(asked, completion):
        raise OSError("no space")

    server.misbehave(chat_server.slow(300), about="egret")  # which the test would wait for
    server.misbehave(chat_server.slow(0.3), about="owl")
    server.misbehave(chat_server.failing(400, "no"), about="jay")
    with pytest.raises(OSError, match="no space"):
        ask(
            (question(name) for name in ("egret", "owl", "jay")),
            Endpoint(server.base_url, timeout=600),
            keep=keep,
            tell=lambda words: None,
        )


INTERRUPTED = """
import json, os, signal, sys, threading, time
from benchmarks import chat_server
from prompts.chat import Endpoint, Question, ask

signal.signal(signal.SIGINT, signal.default_int_handler)
scene, kept, seen, interrupted = sys.argv[1], [], [], False

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def keep(question, completion):
    global interrupted
    if scene == "keeping" and len(kept) == 3 and not interrupted:
        interrupted = True
        while len(server.asked) < 8:  # so that answers wait to be kept
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
    kept.append(question.about)
    if scene == "waiting" and len(kept) == 7:
        threading.Timer(0.05, interrupt).start()
    return ()

def tell(words):
    if "refused" in words:
        threading.Timer(0.05, interrupt).start()

with chat_server.ChatServer() as server:
    server.misbehave(chat_server.slow(300), about="bird 7.")
    if scene == "refused":
        server.misbehave(chat_server.failing(400, "no"), about="bird 3.")
    names = [f"bird {number}." for number in range(8)]
    bodies = [{"model": "test-model", "messages": [{"role": "user", "content": name}]} for name in names]
    questions = [Question(name, body, 0, name) for name, body in zip(names, bodies)]
    try:
        ask(questions, Endpoint(server.base_url, timeout=600), keep=keep, tell=tell)
    except KeyboardInterrupt:
        seen.append("KeyboardInterrupt")
print(json.dumps([sorted(kept), seen, [thread.name for thread in threading.enumerate()]]))
"""
"""In a process of its own, so that no signal ever reaches the process of the tests."""


@pytest.mark.parametrize(
    ("scene", "fewest", "most"),
    [
        ("keeping", 4, 7),  # the one that was being kept, and those that had arrived
        ("waiting", 7, 7),
        ("refused", 0, 6),
    ],
)
def test_ctrl_c_ends_at_once_and_keeps_what_had_arrived(scene, fewest, most):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, scene], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    kept, seen, threads = json.loads(done.stdout)
    assert seen == ["KeyboardInterrupt"]
    assert fewest <= len(kept) == len({*kept}) <= most
    assert "bird 7." not in kept
    assert "chat" not in threads
