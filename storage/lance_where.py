"""Conditions that people type, such as `class IN ('wren', 'jay') AND NOT number >= 3`, read into safe filters.

    condition   any of AND, OR, NOT and parentheses around comparisons
    comparison  COLUMN = != < <= > >= VALUE | COLUMN [NOT] IN (VALUE, ...) | COLUMN [NOT] LIKE 'a%'
                COLUMN [NOT] BETWEEN VALUE AND VALUE | COLUMN IS [NOT] NULL
    VALUE       'text' ('' is one quote), a number, true, false

Keywords in any case, columns as they are called. In LIKE, % is any text, _ one character, a backslash takes the next
character as it is. What is typed is parsed and then written anew; nothing of it reaches the engine as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import pyarrow as pa

from storage.lance_filter import Filter, Value, column_sql, value_sql

LONGEST, MOST_COMPARISONS, MOST_VALUES, DEEPEST = 100_000, 200, 1_000, 10
"""Characters, comparisons, values in one IN, and levels of parentheses or NOT. The engine's own parser recurses."""
MOST_DIGITS = 40

COMPARED = ("=", "!=", "<", "<=", ">", ">=")
_KEYWORDS = frozenset(["AND", "OR", "NOT", "IN", "LIKE", "IS", "NULL", "BETWEEN", "TRUE", "FALSE"])
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*')
  | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | `(?P<column>[A-Za-z_][A-Za-z0-9_]*)`
  | (?P<sign><=|>=|<>|!=|[=<>(),])
    )""",
    re.VERBOSE | re.ASCII,
)


class _Token(NamedTuple):
    kind: str
    """text, number, word, column, sign or end"""
    said: str
    place: int
    """of its first character, from 1"""


def parse_where(text: str, schema: pa.Schema) -> Filter:
    """A filter on rows of a table with this schema, from what a person typed (see the module for the grammar).

    ValueError, with the place, for anything else: another grammar, a column that the schema does not have or that
    holds arrays, a value of another type than its column, more than the limits above.
    """
    if len(text) > LONGEST:
        raise ValueError(f"a condition has at most {LONGEST:,} characters, this has {len(text):,}")
    parser = _Parser(text, _tokens(text), schema)
    sql = parser.any_of(0)
    if parser.here.kind != "end":
        parser.refuse("AND, OR or the end")
    return Filter(sql)


def _tokens(text: str) -> list[_Token]:
    tokens, place = [], 0
    while place < len(text.rstrip()):
        found = _TOKEN.match(text, place)
        if found is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise ValueError(_misread(text, start))
        kind = found.lastgroup
        tokens.append(_Token(kind, found[kind], found.start(kind) + 1))
        place = found.end()
    return [*tokens, _Token("end", "", len(text) + 1)]


def _misread(text: str, start: int) -> str:
    if text[start] == "'":
        return f"the text that begins at place {start + 1} has no closing quote; '' is a quote inside a text"
    hint = "; texts stand in single quotes" if text[start] in '"“”‘’`´' else ""
    return f"{text[start : start + 12]!r} at place {start + 1} is no part of a condition{hint}"


class _Parser:
    """Goes through the tokens once, and writes down what it understood."""

    def __init__(self, text: str, tokens: list[_Token], schema: pa.Schema) -> None:
        self.text, self.tokens, self.schema = text, tokens, schema
        self.next, self.comparisons = 0, 0

    @property
    def here(self) -> _Token:
        return self.tokens[self.next]

    def any_of(self, depth: int) -> str:
        return self._joined("OR", self._all_of, depth)

    def _all_of(self, depth: int) -> str:
        return self._joined("AND", self._one, depth)

    def _joined(self, word: str, part: Callable[[int], str], depth: int) -> str:
        parts = [part(depth)]
        while self._took(word):
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else "(" + f" {word} ".join(parts) + ")"

    def _one(self, depth: int) -> str:
        if depth > DEEPEST:
            raise ValueError(f"place {self.here.place}: a condition goes at most {DEEPEST} levels deep")
        if self._took("NOT"):
            return f"(NOT {self._one(depth + 1)})"
        if self._took("("):
            inside = self.any_of(depth + 1)
            self._need(")")
            return inside
        return self._comparison()

    def _comparison(self) -> str:
        self.comparisons += 1
        if self.comparisons > MOST_COMPARISONS:
            raise ValueError(f"place {self.here.place}: a condition has at most {MOST_COMPARISONS} comparisons")
        field = self._column()
        column = column_sql(field.name)
        if self._took("IS"):
            no = "NOT " if self._took("NOT") else ""
            self._need("NULL")
            return f"({column} IS {no}NULL)"
        no = "NOT " if self._took("NOT") else ""
        if self._took("IN"):
            return f"({column} {no}IN ({', '.join(self._values(field))}))"
        if self._took("BETWEEN"):
            low = self._value(field)
            self._need("AND")
            return f"({column} {no}BETWEEN {low} AND {self._value(field)})"
        if self._took("LIKE"):
            if not _is_text(field.type):
                raise ValueError(f"place {self.here.place}: LIKE is for texts, and {field.name} holds {field.type}")
            return f"({column} {no}LIKE {self._value(field)})"
        sign = "!=" if self.here.said == "<>" else self.here.said
        if no or self.here.kind != "sign" or sign not in COMPARED:
            self.refuse("IN, LIKE or BETWEEN" if no else f"{' '.join(COMPARED)}, IN, LIKE, BETWEEN or IS")
        self.next += 1
        return f"({column} {sign} {self._value(field)})"

    def _column(self) -> pa.Field:
        token = self.here
        columns = [field.name for field in self.schema if not pa.types.is_nested(field.type)]
        if token.kind not in ("word", "column") or (token.kind == "word" and token.said.upper() in _KEYWORDS):
            self.refuse(f"a column ({', '.join(columns)})")
        if token.said not in columns:
            why = "holds arrays" if token.said in self.schema.names else "is no column"
            raise ValueError(f"place {token.place}: {token.said!r} {why}; there are {', '.join(columns)}")
        self.next += 1
        return self.schema.field(token.said)

    def _values(self, field: pa.Field) -> list[str]:
        self._need("(")
        values = [self._value(field)]
        while self._took(","):
            values.append(self._value(field))
            if len(values) > MOST_VALUES:
                raise ValueError(f"place {self.here.place}: IN takes at most {MOST_VALUES:,} values")
        self._need(")")
        return values

    def _value(self, field: pa.Field) -> str:
        token = self.here
        if token.kind == "number" and len(token.said) > MOST_DIGITS:
            raise ValueError(f"place {token.place}: a number has at most {MOST_DIGITS} characters")
        value = _literal(token)
        if value is None:
            null = token.kind == "word" and token.said.upper() == "NULL"
            self.refuse("a value: 'text', a number, true or false" + (" (nulls are found by IS NULL)" if null else ""))
        kinds = {str: _is_text, bool: pa.types.is_boolean, int: _is_number, float: pa.types.is_floating}
        if not kinds[type(value)](field.type):
            raise ValueError(f"place {token.place}: {field.name} holds {field.type}, and {token.said} is none")
        if type(value) is int and not _fits(value, field.type):
            raise ValueError(f"place {token.place}: {token.said} is too large a number for {field.name}")
        self.next += 1
        try:
            return value_sql(value)
        except ValueError as error:
            raise ValueError(f"place {token.place}: {error}") from None

    def _took(self, said: str) -> bool:
        """Whether this keyword or sign comes next; then it is passed."""
        token = self.here
        if (token.kind == "word" and token.said.upper() == said) or (token.kind == "sign" and token.said == said):
            self.next += 1
            return True
        return False

    def _need(self, said: str) -> None:
        if not self._took(said):
            self.refuse(said)

    def refuse(self, wanted: str) -> NoReturn:
        token = self.here
        found = "it ends" if token.kind == "end" else f"{token.said!r} stands there"
        raise ValueError(f"place {token.place} of the condition {self.text!r}: {found}, wanted is {wanted}")


def _literal(token: _Token) -> Value | None:
    if token.kind == "text":
        return token.said[1:-1].replace("''", "'")
    if token.kind == "number":
        return int(token.said) if re.fullmatch(r"[-+]?\d+", token.said) else float(token.said)
    if token.kind == "word" and token.said.upper() in ("TRUE", "FALSE"):
        return token.said.upper() == "TRUE"
    return None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _fits(value: int, kind: pa.DataType) -> bool:
    """Whether a column can hold a whole number; one of floats takes those that a database takes as whole."""
    bits = kind.bit_width if pa.types.is_integer(kind) else 64
    return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
