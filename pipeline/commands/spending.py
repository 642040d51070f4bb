"""Before a run: would it spend many tokens on a language model?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.commands.speaking import agrees, say

if TYPE_CHECKING:
    from pipeline.prepared import Prepared
    from pipeline.run import Selection


def agrees_to_spend(jobs: Sequence[Prepared], selection: Selection, yes: bool) -> bool:
    """Whether to go on: above `describe.ask_above_tokens`, a person at a terminal is asked.

    Elsewhere, and with `yes`, it is told and the run goes on.
    """
    from pipeline.asking import questions_left, tell_asking

    if all(each.plan.of("describe").done for each in jobs):
        return True
    left = [asking for of_job in questions_left(jobs, selection) for asking in of_job]
    if sum(asking.tokens for asking in left) <= min(each.job.describe.ask_above_tokens for each in jobs):
        return True
    say("language models will be asked:", "bold")
    for asking in left:
        say(f"  {tell_asking(asking)}")
    return yes or agrees("ask them?")
