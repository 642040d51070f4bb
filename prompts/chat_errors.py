"""What can go wrong between us and a language model, in words for people: never with a key in them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from prompts.chat import Question

_WORDS_OF_A_SERVER = 400
"""Characters that are repeated of a server's message."""
_SHORTEST_SECRET = 8
"""Characters: what is shorter stands for "no key" (EMPTY, none, ollama) and may be a part of common words."""


class Refused(RuntimeError):
    """The server will not answer, however often it is asked; the message says what to change."""


class Unsupported(ValueError):
    """The server does not know the `response_format` that was asked for: ask again for plain JSON, or for text."""


class Spent(RuntimeError):
    """`max_tokens_total` is used up, and questions are left."""


class Unanswered(RuntimeError):
    """Some questions got no answer in all their attempts, which may pass; `questions` are they."""

    def __init__(self, message: str, questions: Iterable[Question]):
        super().__init__(message)
        self.questions = tuple(questions)


class Scrub:
    """Takes keys out of what servers say: some repeat in an error what they were sent."""

    def __init__(self, secrets: Iterable[str]):
        # As it is, in a URL, in JSON and in a page.
        forms = {
            form
            for secret in secrets
            if len(secret) >= _SHORTEST_SECRET
            for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], html.escape(secret))
        }
        exact = sorted(map(re.escape, forms), key=len, reverse=True)
        self._exact = re.compile("|".join(exact) or r"(?!)")
        # What is not our key word for word may be a masked or shortened form of it. Looked for from the start of a
        # word alone: a long word would else be read from each of its characters.
        self._likely = re.compile(r"\bBearer\s+\S+|\bsk-\S+|(?<!\S)\S*\*{3,}\S*")

    def exactly(self, text: str) -> str:
        """The whole text as UTF-8 can hold it, without secrets that stand in it word for word: what may be stored."""
        return self._exact.sub("(key)", text.encode("utf-8", "replace").decode())

    def __call__(self, text: object) -> str:
        """The text on one line, of a length that can be read, without secrets: what may be told."""
        words = " ".join(self._likely.sub("(key)", self.exactly(str(text))).split())
        return words if len(words) <= _WORDS_OF_A_SERVER else f"{words[:_WORDS_OF_A_SERVER]} ..."

    def __repr__(self) -> str:
        return "Scrub(...)"
