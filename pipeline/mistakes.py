"""What a person is told who wrote a key or a value into a job file that is not allowed there."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.settings import Job

BESIDE_A_JOB = ("sweep",)
"""Keys of a job file that are no settings of a job: what makes several jobs of it."""


def explain_mistakes(data: Any, error: ValidationError) -> str:
    """A line a mistake in a job file's `data`: the dotted key, the value, what is allowed."""
    lines: dict[str, list[str]] = {}
    for problem in error.errors():
        label, value = _walk(data, problem["loc"])
        if problem["type"] == "extra_forbidden":
            place = problem["loc"][:-1]
            allowed = [*_allowed_keys(Job, place), *(() if place else BESIDE_A_JOB)]
            close = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            told, ending = f"{label}: unknown key.{hint} Allowed here: {', '.join(allowed)}", ""
        elif problem["type"] == "missing":
            told, ending = f"{label}: is missing", ""
        elif problem["type"] == "union_tag_not_found":
            told, ending = f"{label}: needs a `{_key_of_kinds(problem)}`", ""
        elif problem["type"] == "union_tag_invalid":
            tag, allowed = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
            close = difflib.get_close_matches(tag, [each.strip("'") for each in allowed.split(", ")], n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            told, ending = (
                f"{label}.{_key_of_kinds(problem)}: {tag!r} is not allowed. ",
                f"{hint}Allowed here: {allowed}",
            )
        elif problem["type"] == "value_error":
            told, ending = f"{label}: {problem['ctx']['error']}".removeprefix(": "), ""
        else:
            told, ending = f"{label}: {value!r} is not allowed. ", problem["msg"]
        lines.setdefault(told, []).append(ending)  # a value that may be of two types is told once, with both
    return "\n".join(told + "; or ".join(filter(None, endings)) for told, endings in lines.items())


def _key_of_kinds(problem: Mapping[str, Any]) -> str:
    """The key that says which of several groups of settings stands there: `kind` or `provider`."""
    return problem["ctx"]["discriminator"].strip("'")


def _walk(data: Any, location: Sequence[Any]) -> tuple[str, Any]:
    """The dotted name of a place in the file and its value; tags that pydantic adds for unions are left out."""
    names: list[str] = []
    for number, step in enumerate(location):
        if (isinstance(data, Mapping) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        ):
            names.append(str(step))
            data = data[step]
        elif number == len(location) - 1 and isinstance(data, Mapping):
            names.append(str(step))
            data = None
    return ".".join(names), data


def _allowed_keys(annotation: Any, location: Sequence[Any]) -> list[str]:
    """Keys that the settings at a place accept, found by following annotations."""
    models = _models(annotation)
    if not location:
        return list(dict.fromkeys(name for model in models for name in model.model_fields))
    step, rest = location[0], location[1:]
    origin = get_origin(annotation)
    if origin in (dict, list):
        return _allowed_keys(get_args(annotation)[-1], rest)
    for model in models:
        if step in model.model_fields:
            return _allowed_keys(_with_metadata(model, step), rest)
        kind = model.model_fields.get("kind") or model.model_fields.get("provider")
        if kind is not None and kind.default == step:
            return _allowed_keys(model, rest)
    return _allowed_keys(annotation, rest)


def _with_metadata(model: type[BaseModel], name: str) -> Any:
    return model.model_fields[name].annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []
