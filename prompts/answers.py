"""Answers of a language model: the schema they are asked for in, and reading them strictly, whatever their shape."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from .chatter import is_refusal
from .plain_text import plain_text

AnswerKind = Literal["marks", "texts"]
"""marks: `{"descriptors": [{"aspect": ..., "text": ...}, ...]}`; texts: `{"descriptors": ["...", ...]}`"""


class Descriptor(NamedTuple):
    """One descriptor as the model gave it."""

    text: str
    aspect: str | None = None
    """the part that it speaks of ("bill"), where the model was asked for it"""


class BadAnswer(ValueError):
    """An answer that is no list of descriptors; its text says why, with at most 80 characters of the answer."""


def answer_schema(kind: AnswerKind) -> type[BaseModel]:
    """The pydantic model of an answer: every key needed, no other allowed, texts only."""
    return _Marks if kind == "marks" else _Texts


def response_format(kind: AnswerKind, mode: Literal["schema", "json", "text"]) -> dict[str, Any] | None:
    """What a chat request carries as `response_format`; None where it carries none.

    The schema keeps to OpenAI's strict subset and has no references, which several other servers cannot follow.
    In JSON mode and in text the question itself must say the shape: `shape_in_words`.
    """
    if mode == "text":
        return None
    if mode == "json":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "descriptors", "strict": True, "schema": _schema(kind)}}


def shape_in_words(kind: AnswerKind) -> str:
    """The sentences that tell a model without a schema what to answer with."""
    item = '{"aspect": "...", "text": "..."}' if kind == "marks" else '"..."'
    return (
        "Answer with one JSON object and nothing before or after it, of exactly this shape, with as many entries as "
        f'are wanted: {{"descriptors": [{item}, {item}]}}'
    )


def parse_answer(
    content: str | None, kind: AnswerKind, *, finish_reason: str | None = None, refusal: str | None = None
) -> list[Descriptor]:
    """The descriptors of an answer, at least one, in its order; texts are as they came, not cleaned.

    It is read by what it is, however it was asked for: JSON of the schema, bare or in one ``` fence, else a list with
    a bullet or a number on every line. Above either may stand one line that ends in a colon, and above all of it a
    model's <think> block. In a list of marks, `Bill: long and red` is an aspect and a text.

    Raises BadAnswer for anything else: a refusal, an empty or cut answer, another schema, prose.
    """
    if refusal and refusal.strip():
        raise BadAnswer(f"the model refused: {_shown(refusal)}")
    if finish_reason == "content_filter":
        raise BadAnswer("the server's content filter stopped the answer")
    text = _THOUGHTS.sub("", (content or "").encode("utf-8", "replace").decode()).strip()
    if finish_reason == "length":
        raise BadAnswer(f"the answer was cut off at the limit of tokens, after {_shown(text) if text else 'no word'}")
    if not text:
        raise BadAnswer("the answer is empty")
    body = _without_intro(text)
    fenced = _FENCE.fullmatch(body)
    body = fenced.group(1).strip() if fenced else body
    if body.startswith("```") and body.count("```") == 1:
        raise BadAnswer(f"the answer's code block does not end: {_shown(body)}")
    found = _from_json(body, kind) if body.startswith(("{", "[")) else _from_list(body, kind)
    if not any(descriptor.text.strip() for descriptor in found):
        raise BadAnswer(f"the answer has no descriptors: {_shown(text)}")
    return found


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Mark(_Strict):
    aspect: str
    text: str


class _Marks(_Strict):
    descriptors: list[_Mark]


class _Texts(_Strict):
    descriptors: list[str]


@cache
def _schema(kind: AnswerKind) -> dict[str, Any]:
    schema = answer_schema(kind).model_json_schema()
    marks = schema.pop("$defs", None)
    if marks:  # the one reference that there is, put in its place
        schema["properties"]["descriptors"]["items"] = marks["_Mark"]
    return _untitled(schema)


def _untitled(schema: Any) -> Any:
    """Without pydantic's titles, which say the names of our classes and cost tokens."""
    if not isinstance(schema, dict):
        return schema
    return {key: _untitled(value) for key, value in schema.items() if key != "title"}


_THOUGHTS = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_ITEM = re.compile(r"\s*(?:(?P<bullet>[-*+•‣▪●◦–—])\s+|\(?\d{1,3}[.)]\s+)(?P<text>\S.*)")


def _without_intro(text: str) -> str:
    """Without a first line of prose that ends in a colon ("Here are nine marks:"); a list's own line is none."""
    first, _, rest = text.partition("\n")
    introduces = first.rstrip().rstrip("*_").endswith(":") and not first.startswith(("{", "[", "```"))
    return rest.strip() if introduces and rest.strip() and not _ITEM.fullmatch(first) else text


def _from_json(body: str, kind: AnswerKind) -> list[Descriptor]:
    try:
        answer = answer_schema(kind).model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid" and "EOF" in first["msg"]:
            raise BadAnswer(f"the answer's JSON ends too early: {_shown(body)}") from None
        if first["type"] == "json_invalid":
            raise BadAnswer(f"the answer is not valid JSON: {_shown(body)}") from None
        where = ".".join(str(part) for part in first["loc"])[:40] or "the top"
        told = first["msg"][0].lower() + first["msg"][1:]
        raise BadAnswer(f"the answer's JSON has another shape (at {where}: {told}): {_shown(body)}") from None
    return [
        Descriptor(item, None) if isinstance(item, str) else Descriptor(item.text, item.aspect)
        for item in answer.descriptors
    ]


def _from_list(body: str, kind: AnswerKind) -> list[Descriptor]:
    items = [_ITEM.fullmatch(line) for line in body.splitlines() if line.strip()]
    if not items or not all(items) or len({item["bullet"] for item in items if item}) != 1:
        if is_refusal(body):
            raise BadAnswer(f"the model refused: {_shown(body)}")
        raise BadAnswer(f"the answer is neither the JSON asked for nor a list: {_shown(body)}")
    texts = [item["text"].strip() for item in items if item]
    return [_mark(text) if kind == "marks" else Descriptor(text) for text in texts]


def _mark(item: str) -> Descriptor:
    """`**Bill:** long red bill` -> aspect Bill, text "long red bill". A text silent about its part keeps it."""
    aspect, colon, text = plain_text(item, "attributes").partition(": ")
    if not colon or not text.strip() or len(aspect.split()) > 4:
        return Descriptor(item)
    aspect, text = plain_text(aspect, "attributes"), text.strip()
    speaks = any(word in text.casefold() for word in aspect.casefold().split())
    return Descriptor(text if speaks else f"{aspect}: {text}", aspect)


def _shown(answer: str) -> str:
    """At most 80 characters of it, on one line."""
    line = " ".join(answer.split())
    return repr(line if len(line) <= 76 else f"{line[:75]}…")
