"""Descriptor files: `{class name: [text, ...]}` in JSON or YAML, as CLIP-D, CuPL and others publish."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .phrasing import clean_class_name

_SHAPE = "a descriptor file is {class name: [text, ...]}"


class ClassDescriptors(NamedTuple):
    """The descriptors of the classes asked for, in their order, under their names; and what was left over."""

    descriptors: dict[str, list[str]]
    extra: list[str]


def read_descriptor_file(path: str | Path) -> dict[str, list[str]]:
    """Read a descriptor file (.json, .yaml or .yml, UTF-8), keeping the order of classes and of texts.

    White space around a text is dropped: tokenizers ignore it, and published files are full of it.

    Raises ValueError, naming file and class, for a file that is missing or cannot be parsed, that is not a
    mapping of names to lists of strings, for an empty list, a blank text or name, and for a name that stands
    there twice.
    """
    content = _parse(Path(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found {_kind(content)} at the top; {_SHAPE}")
    if not content:
        raise ValueError(f"{path}: has no classes; {_SHAPE}")
    return {_class_name(name, path): _texts(name, texts, path) for name, texts in content.items()}


def descriptors_for(
    classes: Sequence[str], descriptors: Mapping[str, Sequence[str]], path: str | Path
) -> ClassDescriptors:
    """Pick each class's descriptors by its exact name, where `_` and a space count as the same.

    `path` is where `descriptors` came from, for messages. Classes of the file that nobody asked for are
    returned in `extra`, so that the caller can say so.

    Raises ValueError naming the classes without descriptors, with similar names that the file does have, and
    for two names in the file that differ only by `_` and space.
    """
    by_name: dict[str, str] = {}
    for name in descriptors:
        other = by_name.setdefault(clean_class_name(name), name)
        if other != name:
            raise ValueError(f"{path}: {other!r} and {name!r} are the same class; keep one of them")
    missing = [name for name in dict.fromkeys(classes) if clean_class_name(name) not in by_name]
    if missing:
        raise ValueError(_missing_message(missing, by_name, path))
    found = {name: list(descriptors[by_name[clean_class_name(name)]]) for name in classes}
    wanted = {clean_class_name(name) for name in classes}
    return ClassDescriptors(found, [name for clean, name in by_name.items() if clean not in wanted])


def _missing_message(missing: Sequence[str], by_name: Mapping[str, str], path: str | Path) -> str:
    shown = []
    for name in missing[:5]:
        similar = difflib.get_close_matches(clean_class_name(name), by_name, n=2)
        hint = f" (similar: {', '.join(repr(by_name[s]) for s in similar)})" if similar else ""
        shown.append(f"{name!r}{hint}")
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        f"{path}: no descriptors for {len(missing)} of the classes: {', '.join(shown)}{more}; "
        "names must agree exactly, except that '_' stands for a space"
    )


def _parse(path: Path) -> Any:
    if path.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise ValueError(f"{path}: a descriptor file ends in .json, .yaml or .yml")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_unique_pairs)
        return yaml.load(text, Loader=UniqueKeyLoader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; {_SHAPE}") from None


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice")
    return dict(pairs)


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which on its own lets a later key silently replace an earlier one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"{key.value!r} stands there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot and a sign in 1e-3; people, and YAML 1.2, do not.
UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _class_name(name: Any, path: str | Path) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{path}: class {name!r} is {_kind(name)}; put class names in quotes")
    if not name.strip():
        raise ValueError(f"{path}: a class has a blank name; {_SHAPE}")
    return name


def _texts(name: str, texts: Any, path: str | Path) -> list[str]:
    if not isinstance(texts, list):
        raise ValueError(f"{path}: class {name!r} has {_kind(texts)}; a list of strings is needed")
    if not texts:
        raise ValueError(f"{path}: class {name!r} has an empty list; at least one text is needed")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ValueError(f"{path}: class {name!r}, text {number} is {_kind(text)}; a string is needed")
        if not text.strip():
            raise ValueError(f"{path}: class {name!r}, text {number} is blank; write it or take it out")
    return [text.strip() for text in texts]


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), f"{type(value).__name__} {value!r}")
