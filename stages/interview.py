"""What a language model is asked about one class: first questions, those asked again, and what the answers say.

A pure bookkeeping of questions and answers: given the same answers it asks the same next question, in whatever order
they came. So a run that was stopped goes on with what lacks, and one that has all answers asks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from prompts.answers import BadAnswer, Descriptor, parse_answer, response_format
from prompts.prompt_file import Prompt, conversations
from stages.descriptor_settings import OpenAIDescriptors

Mode = Literal["schema", "json", "text"]
MODES: tuple[Mode, ...] = ("schema", "json", "text")
"""The forms in which an answer can be asked for, the strictest first."""
SPARE = 4 / 3
"""Descriptors asked for, over those wanted: clean-up drops some."""


@dataclass(frozen=True)
class Asking:
    """How a descriptor set asks: its settings, its prompt, and in which form the server is asked to answer."""

    settings: OpenAIDescriptors
    prompt: Prompt
    mode: Mode

    def bodies(self, class_name: str, similar: Sequence[str]) -> list[dict[str, Any]]:
        """The request body of each question about a class, as the API takes it, less what tells repeats apart."""
        talks = talks_about(self.settings, self.prompt, class_name, similar, structured=self.mode == "schema")
        told = response_format(self.prompt.answer, self.mode)
        chosen = {"model": self.settings.model, "temperature": temperature_of(self.settings, self.prompt)}
        chosen[self._limit] = self.settings.max_tokens
        chosen["response_format"] = told
        given = {key: value for key, value in chosen.items() if value is not None}
        return [given | {"messages": talk} for talk in talks]

    @property
    def _limit(self) -> str:
        """OpenAI's newer models refuse `max_tokens`, and other servers may not know the newer name."""
        return "max_completion_tokens" if self.settings.is_openais_own else "max_tokens"


def talks_about(
    settings: OpenAIDescriptors, prompt: Prompt, class_name: str, similar: Sequence[str], *, structured: bool
) -> list[list[dict[str, str]]]:
    """The conversations that ask about one class, one a question of the prompt."""
    return conversations(
        prompt,
        class_name,
        count=asked_for(settings),
        values=settings.variables,
        similar=similar,
        system=settings.system,
        structured=structured,
    )


def asked_for(settings: OpenAIDescriptors) -> int:
    """Descriptors that are asked for of a class."""
    return math.ceil(SPARE * settings.per_class)


def temperature_of(settings: OpenAIDescriptors, prompt: Prompt) -> float | None:
    """The temperature that is sent; None: none is."""
    if isinstance(settings.temperature, float | int):
        return settings.temperature
    return prompt.temperature if settings.temperature == "prompt" else None


class Turn(NamedTuple):
    """One request: which of the prompt's questions, which of its samples, and for the how-manieth time."""

    question: int
    sample: int
    attempt: int


class Interview:
    """The questions about one class and what was answered so far."""

    def __init__(self, class_name: str, asking: Asking, similar: Sequence[str] = ()):
        self.class_name, self.asking = class_name, asking
        self._bodies = asking.bodies(class_name, similar)
        samples = range(asking.prompt.samples)
        self._slots = [(question, sample) for question in range(len(self._bodies)) for sample in samples]
        self._answers: dict[Turn, list[Descriptor] | str] = {}
        """what was read of an answer, or why it could not be"""

    def body(self, turn: Turn) -> dict[str, Any]:
        """The body of this request. With a seed, each repeat has one of its own: else all would answer alike."""
        body, seed = self._bodies[turn.question], self.asking.settings.seed
        return body if seed is None else body | {"seed": seed + self.repeat(turn)}

    def repeat(self, turn: Turn) -> int:
        """How often the same body was asked before this one."""
        return turn.sample + self.asking.prompt.samples * turn.attempt

    def note(self, turn: Turn, completion: Mapping[str, Any]) -> bool:
        """Take in the answer to one request; whether it could be read."""
        try:
            self._answers[turn] = parse_answer(
                completion["content"],
                self.asking.prompt.answer,
                finish_reason=completion["finish_reason"],
                refusal=completion["refusal"],
            )
        except BadAnswer as error:
            self._answers[turn] = str(error)
        return isinstance(self._answers[turn], list)

    def lacking(self) -> list[Turn]:
        """The requests to make next, given what is answered; none once there is enough, or no attempt is left.

        An answer that cannot be read is asked for again. Where all can be read and together say too little, one more
        is asked for at a time.
        """
        turns = [turn for slot in self._slots if (turn := self._next_of(slot)) is not None]
        if turns or self.is_enough:
            return turns
        made = {slot: self._made(slot) for slot in self._slots}
        slot = min(self._slots, key=lambda each: made[each])
        return [Turn(*slot, made[slot])] if made[slot] < self.asking.settings.attempts else []

    @property
    def begun(self) -> bool:
        """Whether anything was answered."""
        return bool(self._answers)

    @property
    def is_enough(self) -> bool:
        """Whether all answers together say as many different things as are wanted."""
        different = {" ".join(each.text.casefold().split()) for each in self.descriptors()}
        return len(different) >= self.asking.settings.per_class

    def descriptors(self) -> list[Descriptor]:
        """What all answers say, repeats and all: the first of each question and sample, then the second of each."""
        by_slot: dict[tuple[int, int], list[Descriptor]] = {}
        for turn in sorted(self._answers):
            if isinstance(answer := self._answers[turn], list):
                by_slot.setdefault(turn[:2], []).extend(answer)
        return [each for row in zip_longest(*by_slot.values()) for each in row if each is not None]

    def complaint(self) -> str:
        """Why so little came of it: what was wrong with the last answer that could not be read."""
        wrong = [answer for _, answer in sorted(self._answers.items()) if isinstance(answer, str)]
        return wrong[-1] if wrong else f"{len(self.descriptors())} descriptors in all answers together"

    def _next_of(self, slot: tuple[int, int]) -> Turn | None:
        """The first attempt of a slot, or another one after an answer that could not be read."""
        made = self._made(slot)
        if made == 0:
            return Turn(*slot, 0)
        good = any(isinstance(answer, list) for answer in self._of(slot))
        return None if good or made >= self.asking.settings.attempts else Turn(*slot, made)

    def _made(self, slot: tuple[int, int]) -> int:
        return sum(1 for _ in self._of(slot))

    def _of(self, slot: tuple[int, int]) -> Iterator[list[Descriptor] | str]:
        return (answer for turn, answer in self._answers.items() if turn[:2] == slot)
