"""What answers of a language model become: descriptors that were cleaned up, a row a class, by a worker.

All classes are looked at together, and lengths are counted by the text tower's own tokenizer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from prompts.answers import Descriptor
from prompts.phrasing import Form, clean_class_name, phrase
from prompts.templates import filled_templates
from stages.described import SCHEMA

if TYPE_CHECKING:
    from prompts.clean_up import Dropped

VERSION = 1
"""Raised when other texts are kept or dropped."""
LONGEST_FRAME = "a photo of a {class}, {which}."
"""A template that attributes are put into: its tokens are taken off the tower's context."""
SPARE_REASON = "beyond per_class"
"""Not told of: more is asked for than is wanted."""


class Outcome(NamedTuple):
    """What clean-up came to."""

    empty: dict[str, str]
    """classes that nothing is left of, with what became of their answers"""
    short: list[str]
    """classes with fewer descriptors than were wanted"""
    reasons: dict[str, int]
    """how many descriptors went for which reason"""


@dataclass(frozen=True)
class Answers:
    """What a worker makes a table of; nothing in it is secret."""

    keys: Mapping[str, str]
    """class -> key of its row"""
    said: Mapping[str, Sequence[Descriptor]]
    """class -> descriptors in order"""
    most: int
    """descriptors kept of a class"""
    may_be_empty: bool
    """whether a class that nothing is left of is said by its name alone"""
    form: Form
    source: str
    """where they are from, for people"""
    tower: str
    """name of the model whose text tower reads them"""


def clean_and_append(answers: Answers, folder: str, run: str) -> Outcome:
    """Clean up, and append all rows: not one where a class has nothing left and may not have templates."""
    from prompts.clean_up import clean_descriptors
    from stages.vision.text_length import token_counter
    from storage.shards import ShardTable

    count_tokens, limit = token_counter(answers.tower)
    if answers.form == "attributes":  # a template says the class's name beside each
        limit -= max(count_tokens([phrase(LONGEST_FRAME, name, "") for name in answers.keys]))
    kept, dropped = clean_descriptors(
        answers.said, form=answers.form, most=answers.most, max_tokens=limit, count_tokens=count_tokens
    )
    empty = {name: _why_empty(name, dropped) for name, descriptors in kept.items() if not descriptors}
    short = [name for name, descriptors in kept.items() if 0 < len(descriptors) < answers.most]
    if not empty or answers.may_be_empty:
        ShardTable(folder).append(pa.Table.from_pylist(_as_rows(answers, kept, dropped), schema=SCHEMA), run)
    reasons = Counter(each.reason for each in dropped if each.reason != SPARE_REASON)
    return Outcome(empty, short, dict(reasons.most_common()))


def _why_empty(class_name: str, dropped: Sequence[Dropped]) -> str:
    reasons = Counter(each.reason for each in dropped if each.class_name == class_name)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"clean-up kept none of {reasons.total()} descriptors ({told})" if reasons else "no answer had descriptors"


def _said_by_name(names: Iterable[str], form: Form) -> dict[str, list[str]]:
    """What stands for descriptors of a class where there are none, in the form that methods expect.

    Sentences are filled templates; an attribute completes a method's own: "a photo of a wren, which is a wren."
    """
    if form == "sentences":
        return filled_templates("general", names)
    spoken = {name: clean_class_name(name) for name in names}
    return {name: [f"{'an' if said[0].lower() in 'aeiou' else 'a'} {said}"] for name, said in spoken.items()}


def _as_rows(
    answers: Answers, kept: Mapping[str, Sequence[Descriptor]], dropped: Sequence[Dropped]
) -> list[dict[str, Any]]:
    left_out: dict[str, list[dict[str, str]]] = {name: [] for name in kept}
    for each in dropped:
        left_out[each.class_name].append({"text": each.text, "reason": each.reason, "detail": each.detail})
    by_name = _said_by_name(kept, answers.form)
    return [
        {
            "key": key,
            "class": name,
            "texts": [each.text for each in kept[name]] or by_name[name],
            "aspects": [each.aspect for each in kept[name]] or None,
            "source": answers.source if kept[name] else "its name alone (fallback)",
            "dropped": left_out[name],
        }
        for name, key in answers.keys.items()
    ]
