"""What the environment adds to requests: what is meant for OpenAI goes to OpenAI, and none of it is told."""

from __future__ import annotations

import pytest

from benchmarks import chat_server
from benchmarks.chat_server import ChatServer
from prompts.chat import Endpoint, Question, Refused, ask
from prompts.chat_client import open_client

GATEWAY = "gateway-secret-1234"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    headers = f"X-Gateway: {GATEWAY}\nauthorization: Bearer {GATEWAY}-too\nUser-Agent: me"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", headers)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-mine")
    monkeypatch.setenv("MY_KEY", "key-of-mine")


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


def ask_one(endpoint: Endpoint) -> None:
    body = {"model": "test-model", "messages": [{"role": "user", "content": "wren"}]}
    ask([Question("wren", body, 0, "wren")], endpoint, keep=lambda *_: (), tell=print)


def test_what_is_meant_for_openai_is_not_sent_elsewhere(server):
    ask_one(Endpoint(server.base_url, "MY_KEY"))
    headers = server.asked[0].headers
    assert headers["authorization"] == "Bearer key-of-mine"
    assert "of-mine" not in str({name: value for name, value in headers.items() if name != "authorization"})
    assert GATEWAY not in str(headers)
    assert headers["user-agent"] != "me"


@pytest.mark.parametrize(
    ("base_url", "sent"),
    [
        (None, True),
        ("https://eu.api.openai.com/v1", True),
        ("https://mine.openai.azure.com/openai/v1", True),
        ("https://api.openai.com.example.org/v1", False),
        ("https://notapi.openai.com/v1", False),
        ("https://example.org/api.openai.com/v1", False),
    ],
)
def test_openai_and_azure_are_told_the_organization(base_url, sent):
    headers = open_client(Endpoint(base_url, "MY_KEY"), 1).default_headers
    assert ("org-of-mine" in headers.values(), "project-of-mine" in headers.values()) == (sent, sent)
    assert (GATEWAY in headers.values()) == sent


def test_what_the_environment_adds_is_sent_to_azure_and_never_told(server):
    server.misbehave(chat_server.failing(400, f"no to {GATEWAY}, Bearer {GATEWAY}-too and {GATEWAY}-too in 2024-10-21"))
    with pytest.raises(Refused, match=r"answered 400: no to \(key\), \(key\) and \(key\) in 2024-10-21\."):
        ask_one(Endpoint(f"{server.base_url}?api-version=2024-10-21", "MY_KEY", api_version="2024-10-21"))
    assert server.asked[0].headers["x-gateway"] == GATEWAY
    assert server.asked[0].headers["openai-organization"] == "org-of-mine"
