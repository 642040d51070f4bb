"""A real HTTP server that speaks the OpenAI chat protocol in a thread of this process, and misbehaves when asked to.

    with ChatServer() as server:
        server.misbehave(rate_limited(retry_after=".1"), times=3)
        server.misbehave(cut_in_body(), about="wren")      # every question that speaks of the wren, until the end
        ...  # ask server.base_url
        assert len(server.asked) == 12 and server.most_at_once <= 4

What is asked first is answered by the first misbehaviour that is left for it; everything else is answered well, from
the request alone. One asyncio loop and the standard library hold hundreds of slow requests with little CPU.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from benchmarks.chat_answers import completion, good_answer

Body = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A question as it came: seconds of the monotonic clock, path with query, headers in lower case, JSON body."""

    at: float
    path: str
    headers: dict[str, str]
    body: Body

    @property
    def last(self) -> str:
        """What the last message says."""
        messages = self.body.get("messages") or [{}]
        return str(messages[-1].get("content", ""))


@dataclass(frozen=True)
class Reply:
    """What goes back over the wire: where `cut`, the connection ends before it, or in the middle of the body.

    Without a status the body alone is sent, and the connection ends.
    """

    body: bytes
    status: int | None = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    wait: float = 0.0
    """seconds in addition to the server's latency"""
    cut: Literal["before", "middle"] | None = None


Behaviour = Callable[[Asked], Reply]


@dataclass
class _Script:
    behaviour: Behaviour
    times: int | None
    about: str


class ChatServer:
    """Serves /v1/chat/completions (under any prefix, so Azure's addresses too) and /v1/models until the block ends.

    `latency` is in seconds before each answer. Only `models` are known, and where a `key` is given only its bearer
    may ask. `asked` and `most_at_once` record what came.
    """

    def __init__(self, *, models: Sequence[str] = ("test-model",), latency: float = 0.0, key: str | None = None):
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.port = 0
        self._models, self._latency, self._key = tuple(models), latency, key
        self._scripts: list[_Script] = []
        self._at_once = 0
        self._lock = threading.Lock()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def base_url(self) -> str:
        """What clients take for the address."""
        return f"http://127.0.0.1:{self.port}/v1"

    def misbehave(self, behaviour: Behaviour, *, times: int | None = None, about: str = "") -> None:
        """Answer so the next `times` questions (all, if None) whose last message speaks of `about`."""
        with self._lock:
            self._scripts.append(_Script(behaviour, times, about))

    def behave(self) -> None:
        """Forget all misbehaviour that is left."""
        with self._lock:
            self._scripts.clear()

    def __enter__(self) -> ChatServer:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, one after another, until either side ends it."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the server is being stopped
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        method, path, headers = _head(await reader.readuntil(b"\r\n\r\n"))
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET" and path.partition("?")[0].endswith("/models"):
            reply = _json({"object": "list", "data": [{"id": name, "object": "model"} for name in self._models]})
            return await _send(writer, reply)
        if method != "POST" or not path.partition("?")[0].endswith("/chat/completions"):
            return await _send(writer, _error(404, "there is nothing at this address", "invalid_request_error"))
        asked = Asked(time.monotonic(), path, headers, json.loads(body))
        self.asked.append(asked)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = self._reply(asked)
            await asyncio.sleep(self._latency + reply.wait)
        finally:
            self._at_once -= 1
        return await _send(writer, reply)

    def _reply(self, asked: Asked) -> Reply:
        with self._lock:
            for script in self._scripts:
                if script.about in asked.last and script.times != 0:
                    if script.times is not None:
                        script.times -= 1
                    return script.behaviour(asked)
        if self._key is not None and asked.headers.get("authorization") != f"Bearer {self._key}":
            return wrong_key()(asked)
        if asked.body.get("model") not in self._models:
            return unknown_model()(asked)
        return well()(asked)


def well() -> Behaviour:
    """A good answer, in the form that is asked for."""
    return lambda asked: saying(good_answer(asked.body))(asked)


def saying(content: str | None, *, refusal: str | None = None, finish_reason: str = "stop") -> Behaviour:
    """A completion of this content: empty, cut off by its length, no JSON, another schema."""
    return lambda asked: _json(completion(asked.body, content, refusal=refusal, finish_reason=finish_reason))


def refusing(words: str = "I cannot help with that.") -> Behaviour:
    """The field `refusal` in place of an answer."""
    return saying(None, refusal=words)


def few(count: int) -> Behaviour:
    """A good answer with fewer descriptors than were asked for."""
    return lambda asked: saying(good_answer(asked.body, count=count))(asked)


def plain() -> Behaviour:
    """A server that ignores `response_format` without a word, and answers in bullets."""
    return lambda asked: saying(good_answer({**asked.body, "response_format": None}, form="bullets"))(asked)


def no_structured_output() -> Behaviour:
    """A server that refuses `response_format`, and answers well without it."""
    message = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
    refused = _error(400, message, "invalid_request_error", param="response_format")
    return lambda asked: refused if asked.body.get("response_format") else well()(asked)


def rate_limited(retry_after: str | None = None, retry_after_ms: str | None = None) -> Behaviour:
    """429; `retry_after` in seconds or an HTTP date."""
    headers = {"retry-after": retry_after, "retry-after-ms": retry_after_ms}
    reply = _error(429, "Rate limit reached for requests", "requests", code="rate_limit_exceeded")
    return lambda asked: replace(reply, headers={name: value for name, value in headers.items() if value is not None})


def out_of_quota() -> Behaviour:
    """429 that waiting does not help."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return lambda asked: _error(429, message, "insufficient_quota", code="insufficient_quota")


def wrong_key() -> Behaviour:
    """401 by a careless server, which repeats the key."""

    def reply(asked: Asked) -> Reply:
        shown = asked.headers.get("authorization") or asked.headers.get("api-key")
        return _error(401, f"Incorrect API key provided: {shown}", "invalid_request_error", code="invalid_api_key")

    return reply


def unknown_model() -> Behaviour:
    """404 for the model that is asked for."""

    def reply(asked: Asked) -> Reply:
        message = f"The model `{asked.body.get('model')}` does not exist or you do not have access to it."
        return _error(404, message, "invalid_request_error", code="model_not_found")

    return reply


def filtered() -> Behaviour:
    """400 by a content filter, as Azure answers a question that it takes for indecent."""
    message = "The response was filtered due to the prompt triggering the content management policy."
    return lambda asked: _error(400, message, "invalid_request_error", code="content_filter", param="prompt")


def failing(status: int, message: str = "The server had an error", retry_after: str | None = None) -> Behaviour:
    """This status."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return lambda asked: replace(_error(status, message, "server_error"), headers=headers)


def slow(seconds: float) -> Behaviour:
    """A good answer, late."""
    return lambda asked: replace(well()(asked), wait=seconds)


def cut() -> Behaviour:
    """The connection ends without a byte."""
    return lambda asked: replace(well()(asked), cut="before")


def cut_in_body() -> Behaviour:
    """The connection ends in the middle of a good answer."""
    return lambda asked: replace(well()(asked), cut="middle")


def truncated_json() -> Behaviour:
    """A whole response whose JSON ends in its middle."""

    def reply(asked: Asked) -> Reply:
        good = well()(asked)
        return replace(good, body=good.body[: len(good.body) // 2])

    return reply


def html() -> Behaviour:
    """A web page with status 200, as from the address of somebody's user interface."""
    return lambda asked: Reply(b"<!doctype html><title>Welcome</title>", content_type="text/html; charset=utf-8")


def no_http() -> Behaviour:
    """What another kind of server says at that port."""
    return lambda asked: Reply(b"220 mail.example.org ready\r\n", status=None)


def _error(status: int, message: str, kind: str, *, code: str | None = None, param: str | None = None) -> Reply:
    return _json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def _json(document: object, status: int = 200) -> Reply:
    return Reply(json.dumps(document).encode(), status)


def _head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (re.split(r":\s*", line, maxsplit=1) for line in lines if line)
    return method, path, {name.lower(): value for name, value in pairs}


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Whether the connection is still good for another request."""
    if reply.status is None:
        writer.write(reply.body)
    elif reply.cut != "before":
        fields = {"content-type": reply.content_type, "content-length": str(len(reply.body)), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} -", *(f"{name}: {value}" for name, value in fields.items())]
        body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    await writer.drain()
    return reply.cut is None and reply.status is not None
