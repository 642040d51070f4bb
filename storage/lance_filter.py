"""Conditions on rows of a LanceDB table, safe by construction: every column is checked, every value written anew.

`where_equal` is for programs, `storage.lance_where.parse_where` for what people type; `both` joins two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = str | int | float | bool
"""What a column is compared with."""

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Filter:
    """A condition in LanceDB's SQL. Made by `where_equal`, `parse_where` and `both` only: nothing else is safe."""

    sql: str


def where_equal(values: Mapping[str, str | int | None]) -> Filter | None:
    """Rows whose columns equal all the given values, whatever these hold; None is a null, {} no filter.

    ValueError for something that is no column name, TypeError for a value that is no str, int or None.
    """
    terms = [f"{column_sql(name)} {_equals(value)}" for name, value in values.items()]
    return Filter(" AND ".join(terms)) if terms else None


def where_in(column: str, values: Sequence[str]) -> Filter:
    """Rows whose column is one of these texts, of which there may be thousands. ValueError for no column name."""
    return Filter(f"{column_sql(column)} IN ({', '.join(map(value_sql, values))})" if values else "false")


def both(one: Filter | None, other: Filter | None) -> Filter | None:
    """Rows that pass both filters; None is no filter."""
    if one is None or other is None:
        return one or other
    return Filter(f"({one.sql}) AND ({other.sql})")


def column_sql(name: str) -> str:
    """A column's name as SQL; ValueError for what is none."""
    if not _COLUMN.fullmatch(name):
        raise ValueError(f"{name!r} is no column name")
    return f"`{name}`"


def value_sql(value: Value) -> str:
    """A value as an SQL literal that means exactly it; ValueError for a number that is not finite."""
    if type(value) is str:
        return "'" + value.replace("'", "''") + "'"  # in standard SQL strings nothing else needs care
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"a filter compares with finite numbers, not with {value}")
    return repr(value)


def _equals(value: str | int | None) -> str:
    if value is None:
        return "IS NULL"
    if type(value) in (str, int):
        return f"= {value_sql(value)}"
    raise TypeError(f"a filter compares with a str, an int or None, not with {value!r}")
