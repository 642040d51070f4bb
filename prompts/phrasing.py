"""Phrases: class names, descriptors and templates put together into the text that CLIP reads."""

from __future__ import annotations

import string
from collections.abc import Collection
from functools import cache
from typing import Literal

VARIABLES = ("class", "descriptor", "which")

Form = Literal["sentences", "attributes"]
"""How descriptors are written: whole sentences, used as they are, or attributes that a template completes."""

_SPEAKS_FOR_ITSELF = ("has", "often", "typically", "may", "can")


def clean_class_name(name: str) -> str:
    """The name as it is spoken: underscores become spaces (algorithms.md 0.4, 4)."""
    return name.replace("_", " ")


def which_clause(descriptor: str) -> str:
    """`long red beak` -> `which has long red beak`, by CLIP-D's rule (algorithms.md 3).

    It is a test of raw prefixes, as published: "antennae" begins with "a" and so gives "which is antennae".
    """
    if descriptor.startswith(_SPEAKS_FOR_ITSELF):
        return f"which {descriptor}"
    if descriptor.startswith(("a", "used")):
        return f"which is {descriptor}"
    return f"which has {descriptor}"


def check_template(template: str, allowed: Collection[str] = VARIABLES) -> str:
    """Give back a template that has at least one variable, and only `allowed` ones; else raise ValueError.

    Variables are {class}, {descriptor} and {which} (the descriptor as a clause). A literal brace is doubled.
    """
    return _checked(template, tuple(allowed))


@cache  # ImageNet's descriptors fill one template 50,000 times
def _checked(template: str, allowed: tuple[str, ...]) -> str:
    choices = ", ".join(f"{{{name}}}" for name in allowed)
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"template {template!r}: {error}; variables are {choices}, a literal brace is doubled"
        ) from None
    variables = [
        (name, bool(spec) or conversion is not None) for _, name, spec, conversion in parts if name is not None
    ]
    for name, formatted in variables:
        if name not in allowed or formatted:
            shown = f"{{{name}}}" if not formatted else f"a format for {{{name}}}"
            raise ValueError(f"template {template!r} has {shown}; allowed: {choices}")
    if not variables:
        raise ValueError(f"template {template!r} has no variable and would say the same of every class; use {choices}")
    return template


@cache
def speaks_of_descriptors(template: str) -> bool:
    """Whether a template has {descriptor} or {which}; one that has neither gives the same prompt for each of them."""
    return any(name in ("descriptor", "which") for _, name, _, _ in string.Formatter().parse(template))


def phrase(template: str, class_name: str, descriptor: str | None = None) -> str:
    """Fill a template: `phrase("a photo of a {class}, {which}.", "blue_jay", "blue crest")` is
    `"a photo of a blue jay, which has blue crest."`

    Raises ValueError for an unknown variable, or for {descriptor} or {which} when there is no descriptor.
    """
    name = clean_class_name(class_name)
    if descriptor is None:
        return check_template(template, ("class",)).format_map({"class": name})
    values = {"class": name, "descriptor": descriptor, "which": which_clause(descriptor)}
    return check_template(template).format_map(values)
