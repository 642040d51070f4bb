"""Plain text: a descriptor without the numbering, markdown and quotes that a model wrapped it in."""

from __future__ import annotations

import re

from .phrasing import Form


def plain_text(text: str, form: Form) -> str:
    """One line of an answer without what is not part of its words; doing it again changes nothing.

    Taken off: numbers and bullets in front, headings, bold, italics, code and links (their words stay), quotes around
    the whole, commas and semicolons at the end, runs of white space, characters that do not show. Attributes also lose
    an "and" in front and their full stop; sentences keep theirs.
    """
    text = " ".join(_HIDDEN.sub("", text).split())
    while not _ALREADY_PLAIN[form].fullmatch(text):
        stripped = _strip_once(text, form)
        if stripped == text:
            break
        text = stripped
    return text


def _strip_once(text: str, form: Form) -> str:
    for sign, pattern in _MARKDOWN:
        if sign in text:
            text = pattern.sub(r"\1", text)
    text = _FRONT.sub("", text)
    text = text.rstrip(",; ").strip()
    text = _unquoted(text)
    if form == "attributes":
        text = _CONJUNCTION.sub("", text).rstrip(".… ")
    return text.strip()


def _unquoted(text: str) -> str:
    """Without quotes around the whole; `"red" and "blue"` has them inside as well and stays."""
    if text[:1].isalnum():
        return text
    for opening, closing in ('""', "''", "“”", "‘’", "«»", "„“", "``"):
        inner = text[1:-1]
        if len(text) > 1 and text[0] == opening and text[-1] == closing and not {opening, closing} & set(inner):
            return inner
    return text


_LETTERS = r"[^\W\d_](?:(?:[^\W_]|[ &,;:%'’/-])*[^\W_])?"
_ALREADY_PLAIN = {  # most texts are, and this is sooner seen than that nothing can be stripped
    "attributes": re.compile(rf"(?!(?:and|or) ){_LETTERS}", re.IGNORECASE),
    "sentences": re.compile(rf"{_LETTERS}\.?"),
}
_HIDDEN = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\u00ad\u200b-\u200f\u2060\ufeff\ud800-\udfff]")
_MARKDOWN = (  # what stays is group 1; a pattern is tried where its sign occurs, and stops where the sign comes again
    ("](", re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")),
    ("**", re.compile(r"\*\*(?=\S)((?:[^*]|\*(?!\*))+)(?<=\S)\*\*")),
    ("__", re.compile(r"(?<!\w)__(?=\S)(_?(?:[^_]|_(?!_))+_?)(?<=\S)__(?!\w)")),
    ("*", re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]*[^\s*])\*(?![\w*])")),
    ("_", re.compile(r"(?<!\w)_(?=[^\s_])([^_]*[^\s_])_(?!\w)")),
    ("`", re.compile(r"`([^`]+)`")),
    ("```", re.compile(r"()(?:^(?:```\w*)+|(?<!`)`{3,}$)")),
    ("<", re.compile(r"()</?(?:b|i|u|em|strong|code|li|ul|ol|p|span|mark)\b[^<>]*>", re.IGNORECASE)),
)
_FRONT = re.compile(  # runs are taken whole: a model that got stuck may write thousands of bullets
    r"^(?:[-*+•·‣▪●◦–—>]+(?:\s+|$)|[•‣▪●◦]+|#{1,6}\s+|\(?\d{1,3}[.)](?:\s+|$)|\(?[a-z]\)\s+|\[[ xX]\]\s+)+"
)
_CONJUNCTION = re.compile(r"^(?:(?:and|or)\s+)+", re.IGNORECASE)
