"""In which form an endpoint answers: by a schema, as JSON, or as text. Found out once, and noted with its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.chat import Question, Unsupported, ask
from prompts.prompt_file import Prompt
from stages.descriptor_settings import DescribeSettings, OpenAIDescriptors
from stages.interview import MODES, Asking, Interview, Mode
from stages.interviews import endpoint_of
from storage.completions import CompletionStore, completion_key


def known_mode(settings: OpenAIDescriptors, store: CompletionStore) -> Mode | None:
    """The form that the job asks for, or that was found before; None where that is to be found out."""
    if settings.answers != "auto":
        return settings.answers
    noted = store.get_many([key := _note_key(settings)])
    return noted[key]["mode"] if key in noted else None


@dataclass(frozen=True)
class FormSearch:
    """What a search for the form needs: whom to ask what, and where answers are kept."""

    settings: OpenAIDescriptors
    prompt: Prompt
    similar: Mapping[str, Sequence[str]]
    store: CompletionStore
    describe: DescribeSettings
    run: str
    tell: Callable[[str], None]

    def find(self, classes: Sequence[str]) -> Mode:
        """The strictest form that the endpoint takes and keeps to, by what it answers about one of these classes.

        A server may refuse a form, or take it and answer in prose. The form is noted in the store; an answer that
        proves nothing (empty, cut off, refused) decides for this time alone. Raises as `chat.ask`.
        """
        for mode in MODES:
            try:
                completion = self._answer(mode, classes)
            except Unsupported:
                continue
            if mode == "text" or not _proves(completion) or _is_json(completion["content"]):
                break
        if mode != "schema":
            form = "JSON" if mode == "json" else "plain text"
            self.tell(f"{self.settings.model} does not answer by a schema: asked for {form}")
        if _proves(completion):
            self.store.put(_note_key(self.settings), {"mode": mode}, self.run)
        return mode

    def _answer(self, mode: Mode, classes: Sequence[str]) -> Mapping[str, Any]:
        """A stored answer in this form that proves something, else a new one, about the first class that has none."""
        questions = [self._question(mode, name) for name in classes]
        stored = self.store.get_many([question.key for question in questions])
        for completion in stored.values():
            if _proves(completion):
                return completion
        asked = next((question for question in questions if question.key not in stored), None)
        if asked is None:
            return stored[questions[0].key]
        limits = {"concurrency": 1, "max_tokens_total": self.describe.max_tokens_total}
        ask([asked], endpoint_of(self.settings), keep=self._keep, tell=self.tell, **limits)
        return self.store.get_many([asked.key])[asked.key]

    def _question(self, mode: Mode, name: str) -> Question:
        interview = Interview(name, Asking(self.settings, self.prompt, mode), self.similar.get(name, ()))
        turn = interview.lacking()[0]
        body, repeat = interview.body(turn), interview.repeat(turn)
        return Question(completion_key(endpoint_of(self.settings).address, body, repeat), body, repeat, name)

    def _keep(self, question: Question, completion: dict[str, Any]) -> tuple[()]:
        self.store.put(question.key, completion, self.run)
        return ()


def _proves(completion: Mapping[str, Any]) -> bool:
    """Whether an answer tells anything of what the server can."""
    return bool(completion["content"]) and not completion["refusal"] and completion["finish_reason"] != "length"


def _is_json(content: str) -> bool:
    """Whether an answer is a JSON object, or begins as one."""
    text = content.strip().removeprefix("```json").strip("`").strip()
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return text.startswith("{")


def _note_key(settings: OpenAIDescriptors) -> str:
    return completion_key(endpoint_of(settings).address, {"model": settings.model, "asked": "which form it takes"}, 0)
