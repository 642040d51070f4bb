"""All classes of a descriptor set asked: stored answers are read, what lacks is asked for and stored as it comes.

This runs in the driver, not in Ray: the work is to wait for a server, and the key never leaves this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from prompts.chat import Endpoint, Question, Totals, ask
from stages.descriptor_settings import DescribeSettings, OpenAIDescriptors
from stages.interview import MODES, Asking, Interview, Mode, Turn
from storage.completions import CompletionStore, completion_key

FIRST_ANSWERS = 10
"""So many answers, or as many as fly at once, of which none can be read end the asking."""
TOLD_SHARE = 0.1
"""A word on tokens each time that this share of the classes has been asked."""


def endpoint_of(settings: OpenAIDescriptors) -> Endpoint:
    """Where a set asks."""
    return Endpoint(settings.base_url, settings.variable_of_key, settings.api_version, settings.timeout)


class _Waiting(NamedTuple):
    interview: Interview
    turn: Turn


class Interviews:
    """The classes of one set, asked in one mode; `similar` are the classes most like each, where the prompt asks."""

    def __init__(
        self, asking: Asking, names: Sequence[str], similar: Mapping[str, Sequence[str]], store: CompletionStore
    ):
        self.asking, self.similar, self.store = asking, similar, store
        self.endpoint = endpoint_of(asking.settings)
        self.by_class = self._begun(names, asking.mode)
        self.stored = self.spent = self.answer_tokens = 0
        """answers that were there already, the tokens that they took with their questions, and without"""
        self._asked: dict[str, list[_Waiting]] = {}
        self._known: list[str] = []
        self._read = self._unread = 0

    def recall(self) -> None:
        """Take in every stored answer that belongs here, those asked again as well.

        A class that was asked in another form before, and has all its answers, is asked no more.
        """
        self._recall(self.by_class.values())
        for mode in MODES:
            unanswered = [name for name, one in self.by_class.items() if not one.begun]
            if mode != self.asking.mode and unanswered:
                others = self._begun(unanswered, mode)
                self._recall(others.values())
                self.by_class |= {name: one for name, one in others.items() if not one.lacking()}

    def _begun(self, names: Iterable[str], mode: Mode) -> dict[str, Interview]:
        asking = replace(self.asking, mode=mode)
        return {name: Interview(name, asking, self.similar.get(name, ())) for name in names}

    def _recall(self, interviews: Iterable[Interview]) -> None:
        open_ones = list(interviews)
        while open_ones:
            waiting: dict[str, list[_Waiting]] = {}
            for one in open_ones:
                for turn in one.lacking():
                    waiting.setdefault(self.key(one, turn), []).append(_Waiting(one, turn))
            touched: dict[int, Interview] = {}
            for key, completion in self.store.get_many(waiting).items():
                for interview, turn in waiting[key]:
                    could_be_read = interview.note(turn, completion)
                    touched[id(interview)] = interview
                self._read, self._unread = self._read + could_be_read, self._unread + (not could_be_read)
                self._known.append(key)
                self.stored += 1
                self.spent += tokens_of(completion)
                self.answer_tokens += completion["completion_tokens"]
            open_ones = list(touched.values())

    def share(self, run: str) -> None:
        """Give every folder of the store the answers that another one had."""
        self.store.spread(self._known, run)

    def key(self, interview: Interview, turn: Turn) -> str:
        """The key of the completion that answers this request."""
        return completion_key(self.endpoint.address, interview.body(turn), interview.repeat(turn))

    def lacking(self) -> int:
        """How many requests lack, as far as is known before their answers."""
        return sum(len(one.lacking()) for one in self.by_class.values())

    def done(self) -> int:
        """Classes that are asked no more."""
        return sum(not one.lacking() for one in self.by_class.values())

    def ask(
        self, settings: DescribeSettings, run: str, *, ended: Callable[[], None], tell: Callable[[str], None]
    ) -> Totals:
        """Ask for all that lacks; `ended()` is called for every class that has its answers.

        Raises as `chat.ask`, and RuntimeError where not one of the first answers can be read: the others would be paid
        for in vain.
        """
        tokens, classes, every = self.spent, 0, max(1, round(TOLD_SHARE * len(self.by_class)))

        def keep(question: Question, completion: dict[str, Any]) -> Iterator[Question]:
            nonlocal tokens, classes
            tokens += tokens_of(completion)
            again: list[Question] = []
            for interview, turn in self._asked.pop(question.key, ()):  # none when Ctrl-C has it kept twice
                self._count(interview.note(turn, completion), interview, settings)
                again += self._questions(interview)
                if not interview.lacking():
                    classes += 1
                    ended()
                    if classes % every == 0:
                        tell(f"{classes:,} classes answered, {tokens:,} tokens so far")
            return iter(again)

        return ask(
            (question for one in self.by_class.values() for question in self._questions(one)),
            self.endpoint,
            keep=keep,
            write=lambda question, completion: self.store.put(question.key, completion, run),
            concurrency=settings.concurrency,
            max_tokens_total=settings.max_tokens_total,
            spent=self.spent,
            tell=tell,
        )

    def _count(self, could_be_read: bool, interview: Interview, settings: DescribeSettings) -> None:
        self._read += could_be_read
        self._unread += not could_be_read
        if not self._read and self._unread >= max(FIRST_ANSWERS, settings.concurrency):
            raise RuntimeError(
                f"none of {self._unread} answers of {self.asking.settings.model} can be read, so no more is asked for. "
                f"The last one, about {interview.class_name!r}: {interview.complaint()}. All answers are kept. Mend "
                "`max_tokens`, `answers`, the prompt or the model"
            )

    def _questions(self, interview: Interview) -> list[Question]:
        """The requests to make now: none that is on its way, and what two ask alike once."""
        found = []
        for turn in interview.lacking():
            key = self.key(interview, turn)
            waiting = self._asked.setdefault(key, [])
            if not waiting:
                body, repeat = interview.body(turn), interview.repeat(turn)
                found.append(Question(key, body, repeat, interview.class_name))
            if _Waiting(interview, turn) not in waiting:
                waiting.append(_Waiting(interview, turn))
        return found


def tokens_of(completion: Mapping[str, Any]) -> int:
    """Tokens of question and answer together."""
    return completion["prompt_tokens"] + completion["completion_tokens"]
