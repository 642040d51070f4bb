"""The methods a job may ask for, by name. Importing them loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from .abs import Abs
from .clip import Clip
from .crops_mean import CropsMean
from .cupl import Cupl
from .dnd import Dnd
from .method import Features, Method, Texts

__all__ = ["METHODS", "Features", "Method", "Texts", "parse_method"]

METHODS: dict[str, type[Method]] = {
    method.model_fields["name"].default: method for method in (Clip, Cupl, CropsMean, Dnd, Abs)
}


def parse_method(value: str | Mapping[str, Any]) -> Method:
    """A method from a job file: a bare name (all defaults), or a mapping with `name` and settings.

    Raises ValueError, in one line, for a name or a setting that does not exist (with the nearest one and all
    that do), and for a value that is not allowed.
    """
    settings = {"name": value} if isinstance(value, str) else value
    if not isinstance(settings, Mapping):
        raise ValueError(f"a method is a name or a mapping with `name`, not {value!r}; {_choices('', METHODS)}")
    name = settings.get("name")
    if not isinstance(name, str):
        raise ValueError(f"a method needs a `name`, and {dict(settings)!r} has none; {_choices('', METHODS)}")
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; {_choices(name, METHODS)}")
    method = METHODS[name]
    unknown = [key for key in settings if key not in method.model_fields]
    if unknown:
        raise ValueError(f"method {name!r} has no setting {unknown[0]!r}; {_choices(unknown[0], method.model_fields)}")
    try:
        return method.model_validate(dict(settings))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, detail['loc']))} is {detail['input']!r}: "
            + detail["msg"].removeprefix("Value error, ")
            for detail in error.errors()
        )
        raise ValueError(f"method {name!r}: {wrong}") from None


def _choices(given: Any, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(given), list(allowed), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed)}"
