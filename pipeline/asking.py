"""What jobs would still ask of language models, and about what that takes: tokens, and dollars by `describe.price`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.prepared import Prepared
from pipeline.run import Selection
from stages.asking_estimate import estimate_asking
from stages.described_by_llm import AskedSet
from stages.descriptor_settings import DescribeSettings, tell_dollars


@dataclass(frozen=True)
class OpenQuestions:
    """One descriptor set that has questions left. Tokens are estimates."""

    set: str
    model: str
    questions: int
    stored: int
    """answers that are there already and are not asked for again"""
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    """by `describe.price`; None where the job says none"""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def questions_left(jobs: Sequence[Prepared], selection: Selection) -> list[list[OpenQuestions]]:
    """For each job the sets that a run of these stages would ask for; what several jobs ask is the first one's."""
    told: set[str] = set()
    found = []
    for each in jobs:
        left = [_left(asked, each.job.describe, told) for asked in _sets_to_ask(each, selection)]
        found.append([one for one in left if one.questions])
    return found


def _sets_to_ask(job: Prepared, selection: Selection) -> Iterable[AskedSet]:
    """Of a job whose similar classes are not known yet all its sets, asked about without them: as many questions."""
    plan = job.plan.of("describe")
    if "describe" not in selection.names([stage.stage.name for stage in job.plan.stages]):
        return []
    if plan.unknown:
        return plan.stage.sets_to_ask(job.plan.inputs)
    return [table.plan for table in plan.tables if isinstance(table.plan, AskedSet) and not table.complete]


def _left(asked: AskedSet, describe: DescribeSettings, told: set[str]) -> OpenQuestions:
    takes = estimate_asking(asked, told)
    tokens = takes.prompt_tokens, takes.completion_tokens
    dollars = None if describe.price is None else describe.price.of(*tokens)
    return OpenQuestions(asked.name, asked.settings.model, takes.questions, takes.stored, *tokens, dollars)


def tell_asking(asking: OpenQuestions) -> str:
    """One line of it."""
    stored = f" ({asking.stored:,} answered before)" if asking.stored else ""
    return (
        f"descriptors.{asking.set}: {asking.questions:,} questions for {asking.model}{stored}, about "
        f"{asking.tokens:,} tokens{tell_dollars(asking.dollars)}"
    )
