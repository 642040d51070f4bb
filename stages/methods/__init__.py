"""The methods a job may ask for, by name. Importing them loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from .abs import Abs
from .clip import Clip
from .clip_d import ClipD, ClipDWca
from .clip_e import ClipE
from .crops_mean import CropsMean
from .cupl import Cupl
from .dnd import Dnd
from .dnd_tda import DndTda
from .dnd_tip import DndTip
from .dnd_tip_f import DndTipF
from .few_shot import FewShotMethod
from .method import Features, Method, Texts
from .stream import StreamMethod
from .tda import Tda
from .tip import Tip
from .tip_f import TipF
from .waffle import Waffle
from .wca import Wca

__all__ = ["FEW_SHOT", "METHODS", "PRESETS", "TEST_TIME", "ZERO_SHOT", "Features", "Method", "Texts", "parse_method"]

ZERO_SHOT: dict[str, type[Method]] = {
    method.model_fields["name"].default: method
    for method in (Clip, ClipE, ClipD, ClipDWca, Cupl, Waffle, Wca, CropsMean, Dnd, Abs)
}
"""Methods that read an image and texts alone."""

FEW_SHOT: dict[str, type[FewShotMethod]] = {
    method.model_fields["name"].default: method for method in (Tip, TipF, DndTip, DndTipF)
}
"""Methods that read labelled images as well."""

TEST_TIME: dict[str, type[StreamMethod]] = {method.model_fields["name"].default: method for method in (Tda, DndTda)}
"""Methods that learn from the query images as they come by."""

METHODS: dict[str, type[Method]] = {**ZERO_SHOT, **FEW_SHOT, **TEST_TIME}

PRESETS: dict[str, dict[str, Any]] = {
    "wca_code": {"name": "wca", "preset": "wca_code", "views": "wca_code"},
    "abs_code": {"name": "abs", "truncate_to_min": True, "views": "abs_code"},
}
"""Names that stand for a method as its authors' code has it, on the view set of that name; keys that are given win."""


def parse_method(value: str | Mapping[str, Any]) -> Method:
    """A method from a job file: a bare name (all defaults), or a mapping with `name` and settings.

    Raises ValueError, in one line, for a name or a setting that does not exist (with the nearest one and all
    that do), and for a value that is not allowed.
    """
    settings = {"name": value} if isinstance(value, str) else value
    if not isinstance(settings, Mapping):
        raise ValueError(f"a method is a name or a mapping with `name`, not {value!r}; {_choices('', _NAMES)}")
    name = settings.get("name")
    if not isinstance(name, str):
        raise ValueError(f"a method needs a `name`, and {dict(settings)!r} has none; {_choices('', _NAMES)}")
    if name not in _NAMES:
        raise ValueError(f"unknown method {name!r}; {_choices(name, _NAMES)}")
    if name in PRESETS:
        settings = {**PRESETS[name], "label": name, **{key: given for key, given in settings.items() if key != "name"}}
    method = METHODS[settings["name"]]
    unknown = [key for key in settings if key not in method.model_fields]
    if unknown:
        raise ValueError(f"method {name!r} has no setting {unknown[0]!r}; {_choices(unknown[0], method.model_fields)}")
    try:
        return method.model_validate(dict(settings))
    except ValidationError as error:
        wrong = "; ".join(_told(method, detail) for detail in error.errors())
        raise ValueError(f"method {name!r}: {wrong}") from None


def _told(method: type[Method], detail: Mapping[str, Any]) -> str:
    """One thing that is wrong: the setting, its value and what is allowed; names of types in a union are left out."""
    steps = [str(step) for step in detail["loc"] if isinstance(step, int) or step in method.model_fields]
    what = f"{'.'.join(steps)} is {detail['input']!r}: " if steps else ""
    return what + detail["msg"].removeprefix("Value error, ")


def _choices(given: Any, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(given), list(allowed), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed)}"


_NAMES = (*METHODS, *PRESETS)
