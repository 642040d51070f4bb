"""What a descriptor set would still ask of its language model: questions, and about how many tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages.answer_form import known_mode
from stages.described_by_llm import AskedSet
from stages.interview import SPARE
from stages.interviews import Interviews
from storage.completions import CompletionStore

LETTERS_A_TOKEN = 4
"""Of English, about; so many tokens a message are added for what frames it."""
TOKENS_A_MESSAGE = 4
TOKENS_A_DESCRIPTOR = {"attributes": 16, "sentences": 28}
"""With the JSON around it; used until answers are there to go by."""


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked."""

    questions: int
    """requests, none of them a repeat of one that was answered badly: those are known only then"""
    stored: int
    """answers that are there already"""
    prompt_tokens: int
    completion_tokens: int


def estimate_asking(asked: AskedSet, told: set[str] | None = None) -> Estimate:
    """By the questions as they would be sent, and the answers that are there; else by what descriptors mostly take.

    Questions whose keys are in `told` are somebody else's; those that are counted join them.
    """
    told = set() if told is None else told
    store = CompletionStore(*asked.completions)
    interviews = asked.interviews(store, known_mode(asked.settings, store) or "schema")
    lacking = {
        interviews.key(one, turn): one.body(turn) for one in interviews.by_class.values() for turn in one.lacking()
    }
    bodies = [body for key, body in lacking.items() if key not in told]
    told.update(lacking)
    letters = [message["content"] for body in bodies for message in body["messages"]]
    prompts = sum(TOKENS_A_MESSAGE + math.ceil(len(text) / LETTERS_A_TOKEN) for text in letters)
    return Estimate(len(bodies), interviews.stored, prompts, round(len(bodies) * _tokens_an_answer(asked, interviews)))


def _tokens_an_answer(asked: AskedSet, interviews: Interviews) -> float:
    if interviews.stored:
        return interviews.answer_tokens / interviews.stored
    requests = len(asked.prompt.questions) * asked.prompt.samples
    return SPARE * asked.settings.per_class / requests * TOKENS_A_DESCRIPTOR[asked.prompt.form]
