"""How two tables of one name differ, in the words of the job file: `views.abs.crops 60 -> 30`.

Both are given as their `table.json` describes them: stage, name, ingredients, and what a person is told besides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_HEADS = {"views.kind": "views.", "guides.kind": "guides.", "views.guide": "guides.", "methods.name": "methods."}
"""Settings that decide which others there are: where one differs, the rest of that group says nothing more."""
_SETS = {
    "texts": "its descriptors or prompts changed",
    "classes": "score.classes says others",
    "asked": "what is asked about its classes changed",
    "score": "its predictions are new",
    "support": "its shots changed",
    "validation": "its validation images changed",
    "stream": "the stream's images changed",
    "tune": "it is tuned anew",
    "build_caches": "its cache changed",
    "features": "features of its shots changed",
    "whole": "features of its images changed",
    "view": "crops of its images changed",
    "labels": "images or labels changed",
    "names": "names of classes changed",
}
"""Inputs read as a whole, of which only a digest is kept."""
_NAMES_SHOWN = 5


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What makes the table `new` another one than `old`, a clause each; none where they are one table."""
    by_model = old["weights"] != new["weights"] or _differs(old, new, "whole", "encode_text")
    found = _changed_settings(old, new, by_model)
    if by_model and not any(clause.startswith(("model.name ", "model.weights ")) for clause in found):
        found.append("the model's weights changed")
    found += _changed_code(old, new)
    found += _changed_rows(old, new, by_model)
    return found + _changed_sets(old, new)


def differ_in_code_alone(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a table has to be made again for no other reason than that the code of its stage is a newer one."""
    parts = ("stage", "name", "settings", "weights", "rows", "whole")
    return old["version"] < new["version"] and all(old[part] == new[part] for part in parts)


def name_some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _changed_settings(old: Mapping[str, Any], new: Mapping[str, Any], by_model: bool) -> list[str]:
    before = {**old.get("told", new.get("told", {})), **old["settings"]}  # none in tables of older code
    after = {**new.get("told", {}), **new["settings"]}
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    if not by_model:  # a copy of the same model elsewhere
        keys = [key for key in keys if key not in ("model.name", "model.weights")]
    if not any(key.startswith("guides.") for key in keys):  # the same guide under another name
        keys = [key for key in keys if key != "views.guide"]
    for head, group in _HEADS.items():
        if head in keys:
            keys = [key for key in keys if key == head or not key.startswith(group)]
    return [_changed_setting(key, before.get(key), after.get(key), new) for key in keys if key != "classes"]


def _changed_setting(key: str, before: Any, after: Any, new: Mapping[str, Any]) -> str:
    if key == "methods":  # of the comparisons of all methods
        return "other methods are compared"
    name = _as_written(key, new)
    if key == "guides.weights":  # a hash, which tells nobody anything
        return f"{name} changed"
    return f"{name} {_show(before)} -> {_show(after)}"


def _as_written(key: str, new: Mapping[str, Any]) -> str:
    """The setting as a job file has it: the name of the view set, method or guide comes after the group's."""
    group, _, setting = key.partition(".")
    if group == "guides":
        return f"guides.{new.get('told', {}).get('views.guide', '*')}.{setting}"
    if group in ("views", "methods"):
        name = re.sub(r"^(tuned|cache)[.]", "methods.", new["name"])
        return f"{re.sub(r'([.](seed|shots|draw)[.][0-9]+)+$', '', name)}.{setting}"
    if new["stage"] == "describe":
        return f"{new['name']}.{key}"
    return "seed" if key == "evaluate.seed" else key


def _changed_code(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after, stage = old["version"], new["version"], new["stage"]
    if before == after:
        return []
    if stage not in ("score", "tune", "test_time"):
        return [f"the code of {stage} changed (version {before} -> {after})"]
    # A table of these is made by two codes: the stage's, in hundreds, and the method's.
    pairs = zip((stage, new["name"]), divmod(before, 100), divmod(after, 100), strict=True)
    return [f"the code of {code} changed (version {one} -> {two})" for code, one, two in pairs if one != two]


def _changed_rows(old: Mapping[str, Any], new: Mapping[str, Any], by_model: bool) -> list[str]:
    """Tables read row by row that are others now; not told of where a clause above has told why."""
    told, other_views = new.get("told", {}), _differs(old, new, "told", "methods.views")
    found = []
    for name in dict.fromkeys([*old["rows"], *new["rows"]]):
        if by_model or not _differs(old, new, "rows", name) or (name == "view" and other_views):
            continue
        table = f"views.{told['methods.views']}" if name == "view" and told.get("methods.views") else name
        found.append(f"encode_images/{table} is another table")
    return found


def _changed_sets(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    for name in dict.fromkeys([*old["whole"], *new["whole"]]):
        if name == "encode_text" or not _differs(old, new, "whole", name):
            continue
        if (
            name in ("texts", "asked")
            and (clauses := _why_other_texts(old.get("told", {}), new.get("told", {}))) is not None
        ):
            found += clauses
        elif name.startswith("methods."):
            found.append(f"{name} has new predictions")
        else:
            found.append(_SETS.get(name, f"{name} changed"))
    return found


def _why_other_texts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str] | None:
    """New and missing classes; nothing more where a changed setting has said it; None where it is not known."""
    old, new = before.get("classes", []), after.get("classes", [])
    known, wanted = set(old), set(new)
    found = [
        f"{len(names):,} {'class is' if len(names) == 1 else 'classes are'} {what}: {name_some(names)}"
        for names, what in (
            ([name for name in new if name not in known], "new"),
            ([name for name in old if name not in wanted], "gone"),
        )
        if names
    ]
    if found or any(before.get(key) != after.get(key) for key in after if key.startswith("methods.")):
        return found
    return ["the order of the classes changed"] if old != new else None


def _differs(old: Mapping[str, Any], new: Mapping[str, Any], part: str, name: str) -> bool:
    return old.get(part, {}).get(name) != new.get(part, {}).get(name)


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)
