"""Descriptor sets of provider `openai`: what is asked of a language model, and what its answers become.

A table is all or nothing, since clean-up looks at all classes together; answers are kept one by one as they come
(`storage.completions`), so making it anew, with one class more or after a crash, asks for what was never answered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.chat_errors import Unsupported
from prompts.prompt_file import Prompt, check_variables, read_prompt
from prompts.templates import is_path
from stages import cleaned_answers
from stages.answer_form import FormSearch, known_mode
from stages.cleaned_answers import Answers, Outcome, clean_and_append
from stages.described import STAGE, VERSION, Provider
from stages.descriptor_settings import DescribeSettings, OpenAIDescriptors, tell_dollars
from stages.encode_images import describe_table
from stages.interview import Asking, Mode, asked_for, temperature_of
from stages.interviews import Interviews, endpoint_of
from stages.similar_classes import read_similar
from stages.stage import Ingredients, Inputs, Run, Table
from stages.vision.text_length import tokenizer_of
from storage.completions import CompletionStore
from storage.fingerprint import digest

SHOWN = 5
"""Classes that a message names."""


@dataclass(frozen=True)
class AskedSet:
    """What `compute` needs to know of a set: the plan of its table."""

    name: str
    settings: OpenAIDescriptors
    prompt: Prompt
    similar: Mapping[str, Sequence[str]]
    """class -> classes most like it; empty where the prompt does not ask about them"""
    keys: Mapping[str, str]
    """class -> key of its row"""
    completions: tuple[str, ...]
    """folders of answers: the store's own, and one shared with others"""

    def interviews(self, store: CompletionStore, mode: Mode) -> Interviews:
        """All that is asked, with what is stored of it taken in."""
        found = Interviews(Asking(self.settings, self.prompt, mode), list(self.keys), self.similar, store)
        found.recall()
        return found


class DescribedByAsking(Provider):
    """Asks about each class in the driver, which has the key, and has a worker clean up what was answered.

    `tower` is the name of the model whose text tower limits a descriptor's length.
    """

    settings: OpenAIDescriptors

    def __init__(self, name: str, settings: OpenAIDescriptors, describe: DescribeSettings, tower: str):
        super().__init__(name, settings)
        self.describe, self.tower = describe, tower

    def table(self, inputs: Inputs) -> Table:
        """A row a distinct class name, whose key holds a digest of all that is said about it."""
        asked = self.asked(inputs, _similar(inputs) if self.prompt().needs_similar else {})
        ingredients = Ingredients(
            settings=_settings_that_count(self.settings, asked.prompt, self.tower),
            version=100 * VERSION + cleaned_answers.VERSION,
            whole={"asked": digest(sorted(asked.keys.values()))},
        )
        return Table(
            stage=STAGE,
            name=f"descriptors.{self.name}",
            ingredients=ingredients,
            wanted=list(asked.keys.values()),
            keeper=inputs.shard_table(STAGE, ingredients),
            plan=asked,
            told={"classes": list(asked.keys)},
        )

    def prompt(self) -> Prompt:
        """The set's prompt. ValueError for one that cannot be read, or that the set's variables do not fit."""
        try:
            prompt = read_prompt(self.settings.prompt)
            check_variables(prompt, self.settings.variables)
        except ValueError as error:
            raise ValueError(f"descriptors.{self.name}: {error}") from None
        return prompt

    def asked(self, inputs: Inputs, similar: Mapping[str, Sequence[str]]) -> AskedSet:
        """What is asked, where `similar` are the classes most like each. Raises as `prompt`."""
        prompt = self.prompt()
        names = dict.fromkeys(inputs.names.values())
        common = digest([prompt.digest, check_variables(prompt, self.settings.variables), self.settings.system])
        keys = {
            name: f"{name}@{digest([common, asked_for(self.settings), name, list(similar.get(name, ()))])}"
            for name in names
        }
        own, shared = os.path.join(inputs.store, "completions"), self.describe.cache
        return AskedSet(self.name, self.settings, prompt, similar, keys, (own, shared) if shared else (own,))

    def compute(self, table: Table, inputs: Inputs, run: Run) -> None:
        """Ask for what lacks, clean up what was answered, and write the table.

        Raises what `prompts.chat.ask` raises, and RuntimeError naming the classes that no descriptor is left of; every
        answer that came is stored by then.
        """
        asked: AskedSet = table.plan
        store = CompletionStore(*asked.completions)
        interviews = _ask(asked, store, self.describe, run)
        store.compact(run.id)
        silent = {name: one.complaint() for name, one in interviews.by_class.items() if not one.descriptors()}
        if silent and self.settings.fallback == "none":
            raise RuntimeError(_tell_silent(asked, silent))
        answers = Answers(
            keys=asked.keys,
            said={name: one.descriptors() for name, one in interviews.by_class.items()},
            most=self.settings.per_class,
            may_be_empty=self.settings.fallback == "names",
            form=asked.prompt.form,
            source=_source(asked),
            tower=self.tower,
        )
        table.keeper.create(describe_table(table))
        ray = run.cluster()
        write = ray.remote(num_cpus=1, max_retries=3)(clean_and_append)
        self._tell(ray.get(write.remote(answers, table.keeper.folder, run.id)), asked, table, run)

    def _tell(self, outcome: Outcome, asked: AskedSet, table: Table, run: Run) -> None:
        """What clean-up came to. Raises RuntimeError where a class has nothing left and may not have templates."""
        if outcome.empty and self.settings.fallback == "none":
            raise RuntimeError(
                f"{table.name}: clean-up left nothing of what {self.settings.model} said of {len(outcome.empty):,} of "
                f"{len(asked.keys):,} classes: {_tell_each(outcome.empty)}. All answers are kept. Try another prompt "
                "or model, or set `fallback: names` to have their names alone said"
            )
        if outcome.reasons:
            told = ", ".join(f"{count:,} {reason}" for reason, count in outcome.reasons.items())
            run.tell(f"{table.name}: clean-up left out {told}; `fieldmark export JOB dropped.{self.name}` lists them")
        if outcome.empty:
            run.tell(f"{table.name}: said by their names alone (fallback: names): {_name_some(list(outcome.empty))}")
        if outcome.short:
            short = _name_some(outcome.short)
            run.tell(f"{table.name}: fewer than {self.settings.per_class} descriptors are left of {short}")


def _similar(inputs: Inputs) -> dict[str, list[str]]:
    """Class -> those most like it; none where no set that is read asks for them."""
    return {name: found for table in inputs.complete("similar_classes") for name, found in read_similar(table).items()}


def _settings_that_count(settings: OpenAIDescriptors, prompt: Prompt, tower: str) -> dict[str, Any]:
    """What decides the answers, or what is made of them."""
    named = ("model", "per_class", "variables", "seed", "max_tokens", "system", "attempts", "fallback", "answers")
    return {
        "provider": settings.provider,
        "base_url": endpoint_of(settings).address,
        "prompt": _called(prompt),
        "prompt.version": f"{prompt.version} ({prompt.digest[:8]})",
        "temperature": temperature_of(settings, prompt),
        "tower": tokenizer_of(tower),
    } | {key: getattr(settings, key) for key in named}


def _ask(asked: AskedSet, store: CompletionStore, describe: DescribeSettings, run: Run) -> Interviews:
    """The interviews with all answers that can be had."""
    search = FormSearch(asked.settings, asked.prompt, asked.similar, store, describe, run.id, run.tell)
    mode = known_mode(asked.settings, store) or search.find(list(asked.keys))
    interviews = asked.interviews(store, mode)
    interviews.share(run.id)
    for _ in range(interviews.done()):
        run.advance(1, 0)
    try:
        _ask_rest(asked, interviews, describe, run)
    except Unsupported as error:
        if asked.settings.answers != "auto":
            raise RuntimeError(f"descriptors.{asked.name}: {error}. Set `answers: auto`, or another form") from None
        # What the endpoint took before it takes no more: another server answers there now.
        mode = search.find([name for name, one in interviews.by_class.items() if one.lacking()])
        interviews = asked.interviews(store, mode)
        _ask_rest(asked, interviews, describe, run)
    return interviews


def _ask_rest(asked: AskedSet, interviews: Interviews, describe: DescribeSettings, run: Run) -> None:
    """Ask what lacks, and tell what that took."""
    if not (lacking := interviews.lacking()):
        return
    stored = f" ({interviews.stored:,} answered before)" if interviews.stored else ""
    run.tell(f"descriptors.{asked.name}: {lacking:,} questions for {asked.settings.model}{stored}")
    totals = interviews.ask(describe, run.id, ended=lambda: run.advance(1, 0), tell=run.tell)
    price, tokens = describe.price, (totals.prompt_tokens, totals.completion_tokens)
    run.tell(
        f"descriptors.{asked.name}: {totals.answers:,} answers, {tokens[0]:,} tokens of questions and {tokens[1]:,} of "
        f"answers{tell_dollars(None if price is None else price.of(*tokens))}"
    )


def _tell_silent(asked: AskedSet, silent: Mapping[str, str]) -> str:
    return (
        f"descriptors.{asked.name}: {asked.settings.model} gave no descriptors of {len(silent):,} of "
        f"{len(asked.keys):,} classes after {asked.settings.attempts} attempts: {_tell_each(silent)}. All answers are "
        "kept. Raise `attempts`, try another prompt or model, or set `fallback: names` to have their names alone said"
    )


def _tell_each(classes: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name!r}: {why}" for name, why in list(classes.items())[:SHOWN])
    return shown + (f"; and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else "")


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _called(prompt: Prompt) -> str:
    """A prompt's name; of a file its own, wherever it lies."""
    return os.path.basename(prompt.name) if is_path(prompt.name) else prompt.name


def _source(asked: AskedSet) -> str:
    address = endpoint_of(asked.settings).address
    return f"{asked.settings.model} at {address}, prompt {_called(asked.prompt)} version {asked.prompt.version}"
