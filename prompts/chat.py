"""Questions to a language model behind an OpenAI-compatible endpoint: many at once, each until it is answered.

The thread that calls `ask` hands out the questions and takes the answers, one at a time; the requests fly in a thread
beside it. So a pause, an error or Ctrl-C in one does not lose what the other has, and as many questions as are under
way are in memory, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any
from urllib.parse import urlsplit

from prompts.chat_asking import Asking, Purse, Totals
from prompts.chat_errors import Refused, Spent, Unanswered, Unsupported

OPENAI_ADDRESS = "https://api.openai.com/v1"

__all__ = ["Endpoint", "Question", "Refused", "Spent", "Totals", "Unanswered", "Unsupported", "ask"]

Keep = Callable[["Question", dict[str, Any]], Iterable["Question"]]
Write = Callable[["Question", dict[str, Any]], object]


@dataclass(frozen=True)
class Endpoint:
    """Where a language model answers; ValueError for an address that is none.

    base_url: the address above `/chat/completions`, None for OpenAI's own. With an `api_version` it is the address of
    an Azure resource. The key is in the environment variable `key_variable`, and nowhere else.
    timeout: seconds for a whole answer.
    """

    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    api_version: str | None = None
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.base_url is not None and not _is_address(self.base_url):
            raise ValueError(
                f"base_url {self.address!r} is no address: http://HOST[:PORT]/v1 or https://HOST/v1 is one"
            )
        if self.base_url is not None and "@" in urlsplit(self.base_url).netloc:
            raise ValueError(f"base_url {self.address} carries credentials: put the key into ${self.key_variable}")
        if self.api_version is not None and self.base_url is None:
            raise ValueError("api_version is for Azure, which needs a base_url: https://RESOURCE.openai.azure.com")

    @property
    def address(self) -> str:
        """The URL without credentials, query or slash at its end: it may enter keys, tables and messages."""
        if self.base_url is None:
            return OPENAI_ADDRESS
        parts = urlsplit(self.base_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")

    @property
    def key_name(self) -> str:
        """What to call the key in a message."""
        return f"the key in {self.key_variable}" if self.key_variable else "a request without a key"


@dataclass(frozen=True)
class Question:
    """A request: its body as the protocol has it, the key its completion is stored by, and what it is about."""

    key: str
    body: Mapping[str, Any]
    repeat: int
    about: str


def ask(
    questions: Iterable[Question],
    endpoint: Endpoint,
    *,
    keep: Keep,
    write: Write | None = None,
    concurrency: int = 64,
    max_tokens_total: int | None = None,
    spent: int = 0,
    attempts: int = 6,
    tell: Callable[[str], None],
) -> Totals:
    """Ask all questions and those that `keep` returns, at most `concurrency` at once, each up to `attempts` times.

    A completion is `{"content": str | None, "refusal": str | None, "finish_reason": str, "model": str,
    "prompt_tokens": int, "completion_tokens": int, "asked": ISO time, "seconds": float}`. First `write(question,
    completion)` is called, in some thread, many at once; then `keep` in this thread, one at a time, which returns
    questions to ask next. A question counts as under way until both are done. `tell` is called in this thread with a
    line about long pauses and about the first few failures.

    Raises Refused where asking on is of no use; Unsupported where the server does not know `response_format`; Spent
    before a question that `max_tokens_total` less `spent` has no room for, as far as the mean answer tells. Before
    these three nothing more is asked, and what flies, which is paid for, is awaited and kept; after a refusal it is not
    asked again if it fails. The first refusal is the one that is raised. Unanswered comes at the end for questions
    whose attempts were in vain, or as soon as nobody is answered any more. This, and what `write`, `keep`, `questions`
    or Ctrl-C raise, cancels what flies and comes after every answer that had arrived was kept. A `keep` that Ctrl-C
    interrupts is called again for its answer.
    """
    if concurrency < 1 or attempts < 1:
        raise ValueError(f"concurrency {concurrency} and attempts {attempts} must be 1 or more")
    first = list(islice(questions := iter(questions), 1))
    if not first:
        return Totals(0, 0, 0, 0, 0.0)
    asking = Asking(chain(first, questions), keep, write, Purse(max_tokens_total, spent), concurrency, tell)
    return asking.run(endpoint, attempts)


def _is_address(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
