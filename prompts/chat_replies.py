"""What a server's response means: a completion, a reason to ask again, or a reason to stop."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prompts.chat_errors import Refused, Scrub, Unsupported
from prompts.chat_retry import LONGEST_WISH, wished_wait

if TYPE_CHECKING:
    from prompts.chat import Endpoint, Question

_TRANSIENT = (408, 409, 425, 429)
_UNKNOWN_FORMAT = (400, 422, 501)
_FORMAT_WORDS = ("response_format", "json_schema", "json_object", "structured output")
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_FILTERED = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
_BEGINNING = 80
"""Characters that are shown of what is no JSON."""


@dataclass(frozen=True)
class Again:
    """A failure that may pass: why, the seconds that the server wishes, and whether it speaks for all questions."""

    why: str
    wish: float | None = None
    everyone: bool = False


def read_completion(content: bytes, content_type: str, body: Mapping[str, Any], scrub: Scrub) -> dict[str, Any] | Again:
    """The completion in the body of a successful response, without `asked` and `seconds`.

    What is no completion may be one the next time. Where the server counts no tokens they are taken as four characters
    each, so that a cap on them holds. Its texts are valid UTF-8, without the key.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        said = scrub(content.decode(errors="replace"))[:_BEGINNING]
        return Again(f"it answered {content_type or 'something'} that is no JSON: {said}")
    error = document.get("error") if isinstance(document, dict) else None
    try:
        choice = document["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        usage = document.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        if not isinstance(text, str | None) or not isinstance(refusal, str | None):
            raise TypeError
    except (LookupError, TypeError, AttributeError):
        told = error.get("message", error) if isinstance(error, dict) else error
        return Again(f"it reported {scrub(told)}" if told else "its JSON is no chat completion")
    return {
        "content": None if text is None else scrub.exactly(text),
        "refusal": None if refusal is None else scrub.exactly(refusal),
        "finish_reason": scrub.exactly(str(choice.get("finish_reason") or "")),
        "model": scrub.exactly(str(document.get("model") or body.get("model"))),
        "prompt_tokens": _count(usage.get("prompt_tokens"), json.dumps(body.get("messages"))),
        "completion_tokens": _count(usage.get("completion_tokens"), text or refusal or ""),
    }


def read_failure(
    status: int, headers: Mapping[str, str], body: object, question: Question, endpoint: Endpoint, scrub: Scrub
) -> Again | Refused | Unsupported | dict[str, Any]:
    """What a response of 4xx or 5xx means; a question that a filter took for indecent counts as refused by the model.

    `body` is the error of the protocol, or whatever the server sent.
    """
    try:
        whole = body if isinstance(body, str) else json.dumps(body)
    except RecursionError:
        body = whole = "JSON that is nested too deep to be read"
    error = body if isinstance(body, dict) else {}
    message = scrub(error.get("message") or whole)
    codes = {str(error.get("code")), str(error.get("type"))}
    told = f"{endpoint.address} answered {status}: {message}".rstrip(".")
    if status == 402 or codes.intersection(_NO_MONEY):
        return Refused(f"{told}. The quota of {endpoint.key_name} is used up: add credit, or use another key.")
    wish = wished_wait(headers)
    if status in _TRANSIENT or (status >= 500 and status != 501):
        if wish is not None and wish > LONGEST_WISH:
            return Refused(f"{told}. It wishes a pause of {wish / 60:.0f} minutes: run again then.")
        return Again(f"it answered {status}: {message}", wish, everyone=status == 429 or wish is not None)
    if codes.intersection(_FILTERED):
        return _filtered(message, question)
    if status in _UNKNOWN_FORMAT and "response_format" in question.body:
        words = f"{message} {error.get('param')}".lower()
        if any(word in words for word in _FORMAT_WORDS):
            return Unsupported(told)
    return Refused(f"{told}. {_advice(status, question, endpoint)}")


def _count(told: object, text: str) -> int:
    """The tokens of a text that the server told, if that can be; a bool is no count, though Python takes it for one."""
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else len(text) // 4 + 1


def _filtered(message: str, question: Question) -> dict[str, Any]:
    return {
        "content": None,
        "refusal": message,
        "finish_reason": "content_filter",
        "model": str(question.body.get("model")),
        "prompt_tokens": 0,
        "completion_tokens": 0,
    }


def _advice(status: int, question: Question, endpoint: Endpoint) -> str:
    model = question.body.get("model")
    if status == 401:
        if not endpoint.key_variable:
            return "It wants a key: put one into an environment variable, and name that in key_variable."
        if endpoint.key_variable not in os.environ:
            return f"It wants a key, and the environment variable {endpoint.key_variable} is not set."
        return f"It does not accept {endpoint.key_name}: put a key for this address into that environment variable."
    if status == 403:
        name = endpoint.key_name
        return f"{name[0].upper()}{name[1:]} may not use the model {model!r} there, or not from here."
    if status in (404, 405):
        return (
            f"Either it has no model {model!r}, or base_url is not the address above /chat/completions (most end "
            "in /v1)."
        )
    return f"It was asked about {question.about!r} with {_settings(question.body)}: change what it names."


def _settings(body: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in body.items() if isinstance(value, str | int | float))
