"""Descriptors as rows, a line or a row of a table each: which class, and one text of it or all of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

CLASS = "class"
ONE = ("descriptor", "text")
SEVERAL = ("descriptors", "texts")
SHAPE = f"a row has `{CLASS}` and one of {', '.join(f'`{name}`' for name in (*ONE, *SEVERAL))}"


class Row(NamedTuple):
    """A row as it was written."""

    place: str
    """where it stands, for messages: `line 3`, `row 17`"""
    values: Mapping[str, Any]


def gather(rows: Iterable[Row], path: str | Path) -> dict[str, list[str]]:
    """Class name -> its texts, both in the order of the rows; columns that say neither are not looked at.

    Raises ValueError, naming `path` and the place, for a row without a class or a text, for one that is not text or is
    blank, and for a class that has a list and stands in another row too.
    """
    found: dict[str, list[str]] = {}
    lists: dict[str, str] = {}
    for place, values in rows:
        where = f"{path}, {place}"
        said = [name for name in (*ONE, *SEVERAL) if name in values]
        if CLASS not in values or len(said) != 1:
            raise ValueError(f"{where}: has {', '.join(map(str, values)) or 'nothing'}; {SHAPE}")
        name, column = _checked(values[CLASS], CLASS, where), said[0]
        if name in lists or (name in found and column in SEVERAL):
            first = f" ({lists[name]} has all of its texts)" if name in lists else ""
            raise ValueError(f"{where}: class {name!r} stands there twice{first}; put all of its texts in one list")
        if column in SEVERAL:
            lists[name] = place
            found[name] = _list(values[column], column, where)
        else:
            found.setdefault(name, []).append(_checked(values[column], column, where).strip())
    if not found:
        raise ValueError(f"{path}: has no classes; {SHAPE}")
    return found


def _list(texts: Any, column: str, where: str) -> list[str]:
    if not isinstance(texts, list):
        raise ValueError(f"{where}: `{column}` is {kind_of(texts)}; a list is needed, or one text under `{ONE[0]}`")
    if not texts:
        raise ValueError(f"{where}: `{column}` is an empty list; at least one text is needed")
    return [_checked(text, f"{column}[{number}]", where).strip() for number, text in enumerate(texts)]


def _checked(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: `{column}` is {kind_of(value)}; a string is needed")
    if not value.strip():
        raise ValueError(f"{where}: `{column}` is blank; write it or take the row out")
    return value


def json_rows(content: bytes, path: str | Path) -> Iterator[Row]:
    """An object a line; blank lines are passed over. Raises ValueError, naming file and line, for anything else."""
    for number, line in enumerate(as_text(content, path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: is no JSON ({error}); {SHAPE}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path}, line {number}: is {kind_of(values)}, not an object; {SHAPE}")
        yield Row(f"line {number}", values)


def delimited_rows(content: bytes, path: str | Path, delimiter: str) -> Iterator[Row]:
    """Rows under a header line; blank lines are passed over. Raises ValueError, naming file and line, for a bad one."""
    reader = csv.DictReader(io.StringIO(as_text(content, path), newline=""), delimiter=delimiter, strict=True)
    try:
        for values in reader:
            if None in values or None in values.values():
                raise ValueError(
                    f"{path}, line {reader.line_num}: has another number of fields than the first line's "
                    f"{len(reader.fieldnames or ())}; put a text with a delimiter in it in double quotes"
                )
            yield Row(f"line {reader.line_num}", values)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.reader.line_num}: {error}") from None  # its own number lags behind


def as_text(content: bytes, path: str | Path) -> str:
    """UTF-8, with or without a byte order mark. Raises ValueError, naming the file, for other bytes."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start})") from None


def kind_of(value: Any) -> str:
    """What a value is, for people: `a mapping`, `a list`, `int 3`."""
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), f"{type(value).__name__} {value!r}")
