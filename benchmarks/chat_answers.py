"""What a well-behaved language model says to a question for descriptors: made from the request alone, so that the
same question gets the same answer, and different classes hardly ever share a descriptor."""

from __future__ import annotations

import hashlib
import json
import re
import time
from typing import Any, Literal

Kind = Literal["marks", "texts", "bullets"]

_SIZES = ("small", "long", "broad", "short", "narrow", "large", "slender", "stout")
_COLOURS = ("slate", "rusty", "white", "black", "olive", "golden", "crimson", "buff", "azure", "ivory", "umber", "teal")
_PARTS = ("crest", "bill", "throat", "breast", "wing", "tail", "crown", "back", "rump", "leg", "nape", "flank", "cheek")
_MARKS = ("streaks", "bars", "spots", "edges", "patches", "rings", "lines", "tips", "stripes", "flecks")
_DEFAULT_COUNT = 5


def good_answer(body: dict[str, Any], *, count: int | None = None, form: Kind | None = None) -> str:
    """The content of an answer to this request body.

    It has as many descriptors as the last number of the last message says, in the form that `response_format` names;
    without a schema in JSON if a message speaks of it, and in bullets otherwise.
    """
    asked = str(body["messages"][-1]["content"])
    numbers = re.findall(r"\b[0-9]{1,2}\b", asked)
    count = count if count is not None else int(numbers[-1]) if numbers else _DEFAULT_COUNT
    texts = [_descriptor(asked, place) for place in range(count)]
    form = form or _form(body)
    if form == "bullets":
        return "\n".join(f"- {text}" for _, text in texts)
    marks = [{"aspect": part, "text": text} for part, text in texts]
    return json.dumps({"descriptors": marks if form == "marks" else [text for _, text in texts]})


def completion(body: dict[str, Any], content: str | None, *, refusal: str | None, finish_reason: str) -> dict[str, Any]:
    """The document of a completion; its tokens are four characters each."""
    prompt = sum(len(str(message.get("content", ""))) for message in body["messages"]) // 4 + 1
    said = len(content or refusal or "") // 4 + 1
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said},
    }


def _form(body: dict[str, Any]) -> Kind:
    wanted = body.get("response_format") or {"type": "text"}
    words = " ".join(str(message.get("content", "")) for message in body["messages"])
    if wanted["type"] == "json_schema":
        items = wanted["json_schema"]["schema"]["properties"]["descriptors"]["items"]
        return "texts" if items.get("type") == "string" else "marks"
    if wanted["type"] == "json_object" or "JSON" in words:
        return "marks" if "aspect" in words else "texts"
    return "bullets"


def _descriptor(asked: str, place: int) -> tuple[str, str]:
    """(part, text) of the descriptor at a place: the parts of an answer are told one after another."""
    number = int.from_bytes(hashlib.sha256(f"{asked} {place}".encode()).digest()[:8])
    words = []
    for choices in (_SIZES, _COLOURS, _COLOURS, _MARKS, _COLOURS, _PARTS):
        number, chosen = divmod(number, len(choices))
        words.append(choices[chosen])
    size, colour, second, mark, third, other = words
    part = _PARTS[place % len(_PARTS)]
    return part, f"a {size} {colour} {part} with {second} {mark} by the {third} {other}"
