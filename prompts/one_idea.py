"""One idea a descriptor: texts that say two things become two."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .clean_up_words import clean_up_words
from .phrasing import Form
from .plain_text import plain_text


def split_ideas(text: str, form: Form) -> list[str]:
    """The ideas of a text as plain texts, in their order; none where nothing is left of it.

    A text is cut at every new line. Attributes are cut at semicolons too, and at commas, slashes and "and" only if
    every piece is surely a part with a look of its own: one word for its look at least, and then the name of the part,
    all of them in `clean_up_words.yaml`. "Red beak and long legs" is two ideas; "black and white stripes", "black head
    and breast" and "long, curved beak" are one. Sentences are whole: half of one no longer says whom it speaks of.
    """
    return [idea for line in _NEW_LINE.split(text) for idea in _ideas(line, form)]


def _ideas(text: str, form: Form) -> Iterator[str]:
    text = plain_text(text, form)
    pieces = _pieces(text) if form == "attributes" else [text]
    if len(pieces) > 1:
        for piece in pieces:
            yield from _ideas(piece, form)
    elif text:
        yield text


def _pieces(text: str) -> list[str]:
    if ";" in text:
        return text.split(";")
    pieces = _JOINT.split(text)
    return pieces if len(pieces) > 1 and all(_is_part_with_a_look(piece) for piece in pieces) else [text]


def _is_part_with_a_look(piece: str) -> bool:
    known = clean_up_words()
    *before, part = piece.casefold().split() or [""]
    return (
        part in known["parts"]
        and any(_is_look(word) for word in before)
        and all(_is_look(word) or word in known["strengths"] or word in known["parts"] for word in before)
    )


def _is_look(word: str) -> bool:
    """A colour, a shape, or such words joined: "red", "white-tipped", "blue-gray"."""
    looks = clean_up_words()["looks"]
    if word in looks:
        return True
    first, *more = word.split("-")
    return first in looks and all(other in looks or other.endswith("ed") for other in more)


_NEW_LINE = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+|<br\s*/?>", re.IGNORECASE)
_JOINT = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+|\s*/\s*", re.IGNORECASE)
