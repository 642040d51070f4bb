"""Hand-written prompt templates: the sets that ship (`templates.yaml`), and files of the user's own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import yaml

from .phrasing import check_template, phrase
from .words import read_list


@cache
def shipped_templates() -> Mapping[str, tuple[str, ...]]:
    """Every set that ships, by name: `general`, `imagenet`, `imagenet_7`, `cub`, and so on (algorithms.md 2 and 9)."""
    text = Path(__file__).with_name("templates.yaml").read_text(encoding="utf-8")
    return {name: tuple(templates) for name, templates in yaml.safe_load(text).items()}


def is_path(name: str) -> bool:
    """Whether a setting names a file rather than a set that ships: files have an ending or lie in a folder."""
    return any(mark in name for mark in "./\\")


def check_templates(name: str) -> str:
    """Give back a path, or the name of a set that ships; ValueError for any other, with those there are."""
    if is_path(name) or name in shipped_templates():
        return name
    close = difflib.get_close_matches(name, shipped_templates(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"no templates are called {name!r}; {hint}there are {', '.join(shipped_templates())}, "
        "or give a file that ends in .txt, .yaml or .json"
    )


def read_templates(name: str) -> list[str]:
    """The templates of a set that ships, or of a file: a template a line (.txt), or a list (.json, .yaml).

    {class} stands for the class's name, and so does {}, as published files write it. Raises ValueError, naming the
    file, for one that cannot be read and for a template without the name or with anything else in braces; for a name
    that is neither, with the sets there are.
    """
    if not is_path(check_templates(name)):
        return list(shipped_templates()[name])
    templates = [template.replace("{}", "{class}") for template in read_list(name, "templates")]
    try:
        return [check_template(template, ("class",)) for template in templates]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def filled_templates(name: str, classes: Iterable[str]) -> dict[str, list[str]]:
    """Class -> the sentences that a set of templates, or a file of them, makes of its name, in their order.

    What descriptors of a class are where nothing is known of it but what it is called. Raises ValueError as
    `read_templates` does.
    """
    templates = read_templates(name)
    return {one: [phrase(template, one) for template in templates] for one in classes}
