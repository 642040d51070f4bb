"""What a prompt file may hold, key by key, and what is told of one that holds something else."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .answers import AnswerKind, answer_schema
from .descriptor_file import UniqueKeyLoader
from .phrasing import Form

GIVEN = ("class", "count", "similar")
"""variables that come from the class and the job, not from anybody's `variables`"""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Example(_Strict):
    """A question and its answer, shown before the real question."""

    question: str = Field(min_length=1)
    answer: list[Any] = Field(min_length=1)

    def as_answered(self) -> dict[str, Any]:
        """The answer in the shape in which a model gives it."""
        return {"descriptors": self.answer}


class PromptShape(_Strict):
    """A prompt file, key by key; `prompt_file.Prompt` says what each is for."""

    version: int = Field(ge=1)
    form: Form
    answer: AnswerKind
    questions: list[str] = Field(min_length=1)
    system: str | None = None
    examples: list[Example] = []
    variables: dict[str, str | None] = {}
    samples: int = Field(default=1, ge=1, le=1000)
    temperature: float | None = Field(default=None, ge=0, le=2)


def read_shape(path: Path) -> PromptShape:
    """Read a prompt file and check it, or raise ValueError with the file, the key and what is allowed there."""
    try:
        shape = PromptShape.model_validate(_parse(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {_first_mistake(error)}") from None
    for name in shape.variables:
        if name in GIVEN or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"{path}: variables: {name!r} cannot be one; a name of small letters, digits and _ is needed, "
                f"other than {', '.join(GIVEN)}"
            )
    for number, question in enumerate(shape.questions, start=1):
        _check_question(question, shape.variables, f"{path}: questions, number {number}")
    unused = set(shape.variables) - variables_of(shape.questions)
    if unused:
        raise ValueError(f"{path}: variables: no question uses {{{min(unused)}}}; use it or take it out")
    for number, example in enumerate(shape.examples, start=1):
        _check_example(example, shape.answer, f"{path}: examples, number {number}")
    return shape


def variables_of(questions: Iterable[str]) -> set[str]:
    """The names in braces of these templates."""
    return {name for question in questions for _, names in lines_of(question) for name in names}


@cache  # a thousand classes fill the same few questions
def lines_of(question: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each line of a template with the names of its variables."""
    parse = string.Formatter().parse
    return tuple(
        (line, tuple(name for _, name, _, _ in parse(line) if name is not None)) for line in question.splitlines()
    )


def _parse(path: Path) -> Any:
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(f"{path}: a prompt file ends in .yaml or .yml")
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; a prompt file is YAML") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: a prompt file is a mapping with the keys {', '.join(PromptShape.model_fields)}")
    return content


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    numbered = [f"number {part + 1}" if isinstance(part, int) else str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden" and len(numbered) == 1:
        return f"{numbered[0]}: no such key; there are {', '.join(PromptShape.model_fields)}"
    if first["type"] == "missing":
        return f"{', '.join(numbered)}: is missing"
    given = first["input"]
    found = f", found {str(given)[:40]!r}" if isinstance(given, (str, int, float)) else ""
    return f"{', '.join(numbered)}: {first['msg'][0].lower()}{first['msg'][1:]}{found}"


def _check_question(question: str, own: Iterable[str], place: str) -> None:
    allowed = [*GIVEN, "domain", *(name for name in own if name != "domain")]
    choices = ", ".join(f"{{{name}}}" for name in allowed)
    try:
        parts = [part for line in question.splitlines() for part in string.Formatter().parse(line)]
    except ValueError as error:
        raise ValueError(f"{place}: {error}; variables are {choices}, a literal brace is doubled") from None
    for _, name, spec, conversion in parts:
        if name is not None and (name not in allowed or spec or conversion):
            raise ValueError(f"{place}: has {{{name}}}; allowed: {choices}, a literal brace is doubled")
    if "class" not in variables_of([question]):
        raise ValueError(f"{place}: has no {{class}} and would ask the same of every class; allowed: {choices}")


def _check_example(example: Example, kind: AnswerKind, place: str) -> None:
    try:
        answer_schema(kind).model_validate(example.as_answered())
    except ValidationError:
        wanted = "{aspect, text} pairs" if kind == "marks" else "texts"
        raise ValueError(f"{place}: answer: a list of {wanted} is needed") from None
