"""The thread that asks: it hands out questions while there is room and money, and takes the answers one at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from prompts.chat_errors import Refused, Spent, Unanswered, Unsupported
from prompts.chat_flight import Flight, Outcome
from prompts.chat_replies import Again

if TYPE_CHECKING:
    from prompts.chat import Endpoint, Keep, Question, Write

_NAMED = 5
"""Questions that an error names."""
_IN_VAIN = 3
"""Questions in vain with no answer between them, and as many as fly at once, that show that nobody is answered."""
_WRITERS = 16
"""Answers that are written at once: what is slow is a disk that is told to be sure, or a far store."""
_FIRST_GUESS = 500
"""Tokens that an answer is taken to cost, question included, until one has come."""


@dataclass(frozen=True)
class Totals:
    """What asking came to; seconds from the first request to the last answer."""

    answers: int
    prompt_tokens: int
    completion_tokens: int
    retries: int
    seconds: float


class Purse:
    """Tokens that may be spent, and those that were."""

    def __init__(self, most: int | None, before: int):
        self.most, self.before = most, before
        self.answers = self.prompt_tokens = self.completion_tokens = 0

    @property
    def spent(self) -> int:
        """Tokens, those before this call included."""
        return self.before + self.prompt_tokens + self.completion_tokens

    def pay(self, completion: Mapping[str, Any]) -> None:
        """Count an answer."""
        self.answers += 1
        self.prompt_tokens += completion["prompt_tokens"]
        self.completion_tokens += completion["completion_tokens"]

    def holds_another(self, flying: int) -> bool:
        """Whether something will be left when those that fly have cost as much as answers did so far."""
        if self.most is None:
            return True
        mean = (self.spent - self.before) / self.answers if self.answers else _FIRST_GUESS
        return self.spent + flying * mean < self.most


class Asking:
    """What is known in the thread that asks: what flies, and what has arrived.

    An arrival leaves `_arrived` only after it was kept, so that no interrupt can come between.
    """

    def __init__(
        self,
        questions: Iterator[Question],
        keep: Keep,
        write: Write | None,
        purse: Purse,
        concurrency: int,
        tell: Callable[[str], None],
    ):
        self._questions, self._keep, self._write = questions, keep, write
        self._purse, self._concurrency, self._tell = purse, concurrency, tell
        self._further: deque[Question] = deque()
        self._flying = 0
        self._arrived: deque[tuple[Question, Outcome | BaseException]] = deque()
        self._news: SimpleQueue[str | None] = SimpleQueue()
        self._in_vain: list[tuple[Question, str]] = []
        self._in_vain_in_a_row = 0
        self._refusal: Refused | Unsupported | None = None

    def run(self, endpoint: Endpoint, attempts: int) -> Totals:
        """Until all is answered, or something is raised."""
        try:
            with (
                ThreadPoolExecutor(_WRITERS) as self._writers,
                Flight(endpoint, at_once=self._concurrency, attempts=attempts, tell=self._news.put) as flight,
            ):
                start = time.perf_counter()
                self._ask_all(flight, endpoint, attempts)
                seconds = time.perf_counter() - start
        except BaseException as error:
            self._keep_rest(error)
            raise
        purse = self._purse
        return Totals(purse.answers, purse.prompt_tokens, purse.completion_tokens, flight.retries, seconds)

    def _ask_all(self, flight: Flight, endpoint: Endpoint, attempts: int) -> None:
        while True:
            self._send(flight)
            if not self._flying:
                break
            if (words := self._news.get()) is not None:
                self._tell(words)
            while self._arrived:
                self._take(*self._arrived[0])
            if self._refusal is None and self._in_vain_in_a_row >= max(_IN_VAIN, self._concurrency):
                break
        if self._refusal is not None:
            raise self._refusal
        if self._in_vain:
            raise self._unanswered(endpoint, attempts)

    def _send(self, flight: Flight) -> None:
        """Send as many as there is room for; none after a refusal."""
        while self._refusal is None and self._flying < self._concurrency:
            affordable = self._purse.holds_another(self._flying)
            if not affordable and self._flying:
                return
            question = self._further.popleft() if self._further else next(self._questions, None)
            if question is None:
                return
            if not affordable:
                raise Spent(
                    f"max_tokens_total is {self._purse.most:,}, and {self._purse.spent:,} tokens are spent. "
                    f"{self._purse.answers:,} answers came and are stored: with a larger max_tokens_total, a run asks "
                    "for the others alone"
                )
            self._flying += 1
            flight.send(question).add_done_callback(partial(self._land, question))

    def _land(self, question: Question, future: Future[Outcome]) -> None:
        """Called in the thread of the flight: have the answer written, then hand it over."""
        if future.cancelled():
            return
        outcome = future.exception() or future.result()
        if self._write is None or not isinstance(outcome, dict):
            self._hand_over(question, outcome)
            return
        written = self._writers.submit(self._write, question, outcome)
        written.add_done_callback(lambda done: self._hand_over(question, done.exception() or outcome))

    def _hand_over(self, question: Question, outcome: Outcome | BaseException) -> None:
        self._arrived.append((question, outcome))
        self._news.put(None)

    def _take(self, question: Question, outcome: Outcome | BaseException) -> None:
        """Take the first arrival."""
        if isinstance(outcome, dict):
            try:
                self._further.extend(self._keep(question, outcome))
            except Exception:
                self._arrived.popleft()
                raise
        self._arrived.popleft()
        self._flying -= 1
        if isinstance(outcome, Refused | Unsupported):
            if self._refusal is None and self._flying:
                self._tell(f"a question was refused: no more are asked, {self._flying} that are under way are awaited")
            self._refusal = self._refusal or outcome
        elif isinstance(outcome, BaseException):
            raise outcome
        elif isinstance(outcome, Again):
            self._in_vain.append((question, outcome.why))
            self._in_vain_in_a_row += 1
        else:
            self._purse.pay(outcome)
            self._in_vain_in_a_row = 0

    def _keep_rest(self, error: BaseException) -> None:
        """Keep what had arrived when it ended; what `keep` itself raises then is only noted."""
        failed = 0
        for question, outcome in self._arrived:
            if isinstance(outcome, dict):
                try:
                    list(self._keep(question, outcome))
                except Exception:
                    failed += 1
        if failed:
            error.add_note(f"{failed} more answers had arrived, and keeping them failed as well")

    def _unanswered(self, endpoint: Endpoint, attempts: int) -> Unanswered:
        questions = [question for question, _ in self._in_vain]
        named = ", ".join(repr(question.about) for question in questions[:_NAMED])
        more = f" and {len(questions) - _NAMED} more" if len(questions) > _NAMED else ""
        return Unanswered(
            f"{endpoint.address} gave no answer about {named}{more} in {attempts} attempts: {self._in_vain[-1][1]}. "
            f"{self._purse.answers:,} other answers came and are stored: a run asks for what is missing alone",
            questions,
        )
