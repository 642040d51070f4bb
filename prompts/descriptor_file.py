"""Descriptor files: `{class name: [text, ...]}` in JSON or YAML, as CLIP-D and CuPL publish theirs, or rows of a table.

What is wrong with one is told with its name and the place in it. Whose descriptors they are: `descriptor_names`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .descriptor_rows import as_text, delimited_rows, gather, json_rows, kind_of
from .descriptor_tables import read_arrow, read_parquet, table_rows

_SHAPE = "a descriptor file is {class name: [text, ...]}"


def read_descriptor_file(path: str | Path, content: bytes | None = None) -> dict[str, list[str]]:
    """Class name -> texts, both in the order of the file; `content` stands for the bytes of one that lies elsewhere.

    .json, .yaml and .yml map names to lists of texts; .jsonl and .ndjson have an object a line, .csv and .tsv a header
    and a row a descriptor, .parquet, .arrow and .feather a row too: `class`, and one of `descriptor` and `text`, or,
    for all of a class in one row, of `descriptors` and `texts` with a list. Text is UTF-8. White space around a text
    is dropped: tokenizers ignore it, and published files are full of it.

    Raises ValueError, naming the file and the class or line, for one that cannot be read or parsed, for another shape,
    an empty list, a blank text or name, and for a name that stands there twice.
    """
    read = _READERS.get(Path(path).suffix.lower())
    if read is None:
        *most, last = _READERS
        raise ValueError(f"{path}: a descriptor file ends in {', '.join(most)} or {last}")
    return read(_bytes(path) if content is None else content, path)


def read_keyed(path: str | Path, shape: str) -> Any:
    """What a .json, .yaml or .yml file says, in which no key may stand twice; `shape` says what one should hold.

    Raises ValueError, naming the file, for one that cannot be read or parsed.
    """
    if Path(path).suffix.lower() not in (".json", ".yaml", ".yml"):
        raise ValueError(f"{path}: should end in .json, .yaml or .yml; {shape}")
    return _parse(_bytes(path), path, shape)


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def _mapping(content: bytes, path: str | Path) -> dict[str, list[str]]:
    said = _parse(content, path, _SHAPE)
    if not isinstance(said, dict):
        raise ValueError(f"{path}: found {kind_of(said)} at the top; {_SHAPE}")
    if not said:
        raise ValueError(f"{path}: has no classes; {_SHAPE}")
    return {_class_name(name, path): _texts(name, texts, path) for name, texts in said.items()}


def _parse(content: bytes, path: str | Path, shape: str) -> Any:
    text = as_text(content, path)
    try:
        if Path(path).suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_unique_pairs)
        return yaml.load(text, Loader=UniqueKeyLoader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; {shape}") from None


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
        raise ValueError(f"{path}: class {name!r} is {kind_of(name)}; put class names in quotes")
    if not name.strip():
        raise ValueError(f"{path}: a class has a blank name; {_SHAPE}")
    return name


def _texts(name: str, texts: Any, path: str | Path) -> list[str]:
    if not isinstance(texts, list):
        raise ValueError(f"{path}: class {name!r} has {kind_of(texts)}; a list of strings is needed")
    if not texts:
        raise ValueError(f"{path}: class {name!r} has an empty list; at least one text is needed")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ValueError(f"{path}: class {name!r}, text {number} is {kind_of(text)}; a string is needed")
        if not text.strip():
            raise ValueError(f"{path}: class {name!r}, text {number} is blank; write it or take it out")
    return [text.strip() for text in texts]


_READERS: Mapping[str, Callable[[bytes, str | Path], dict[str, list[str]]]] = {
    ".json": _mapping,
    ".yaml": _mapping,
    ".yml": _mapping,
    ".jsonl": lambda content, path: gather(json_rows(content, path), path),
    ".ndjson": lambda content, path: gather(json_rows(content, path), path),
    ".csv": lambda content, path: gather(delimited_rows(content, path, ","), path),
    ".tsv": lambda content, path: gather(delimited_rows(content, path, "\t"), path),
    ".parquet": lambda content, path: gather(table_rows(read_parquet(content, path)), path),
    ".arrow": lambda content, path: gather(table_rows(read_arrow(content, path)), path),
    ".feather": lambda content, path: gather(table_rows(read_arrow(content, path)), path),
}
