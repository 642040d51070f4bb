"""Names within texts: which class a text speaks of, by whole words, for thousands of names at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

from .clean_up_words import clean_up_words
from .phrasing import clean_class_name

Words = tuple[str, ...]


def words_of(text: str) -> Words:
    """The words of a text in small letters: no punctuation, no "'s"; hyphens part them."""
    text = text.casefold()
    if "'" in text or "’" in text:
        text = _POSSESSIVE.sub("", text)
    return tuple(_WORD.findall(text))


def name_words(class_name: str) -> Words:
    """The words by which a class is called in speech, without what a list adds in brackets: `crane (bird)` -> crane."""
    spoken = clean_class_name(class_name)
    return words_of(_BRACKETS.sub(" ", spoken)) or words_of(spoken)


def is_name(words: Words, own: Words) -> bool:
    """Whether words are a class's name and nothing else, in the singular or the plural."""
    return words in _ways_to_say(own)


def without_name(words: Words, own: Words) -> str:
    """The words without the class's name, in the singular or the plural, in one string."""
    said = f" {' '.join(words)} "
    for way in _ways_to_say(own):
        said = said.replace(f" {' '.join(way)} ", " ")
    return said


class OtherNames:
    """The names of all classes, to find those that do not belong in a text about one of them.

    Names are found in any case, in the singular or the plural, and only as whole words. Not looked for are names

    - that are a part of the class's own: a blue jay is a jay;
    - before "shaped" or after "shaped like": "bell-shaped flowers" says nothing of bells;
    - of one word that mostly means something else in a description (`clean_up_words.yaml`): a colour ("orange"), a look
      ("striped"), a part ("chest", "screw"), a material ("wool"), a word of grammar ("can"), unless it follows "unlike"
      or "than";
    - that are a number, or one or two letters.
    """

    def __init__(self, class_names: Iterable[str]):
        self._by_start: dict[Words, list[tuple[Words, Words, str]]] = {}
        self._compared: dict[str, str] = {}
        self._own: dict[str, Words] = {}
        known = clean_up_words()
        seldom = known["seldom_names"] | known["looks"] | known["parts"]
        for class_name in class_names:
            words = self._own[class_name] = name_words(class_name)
            if len(words) == 1 and (len(words[0]) < 3 or words[0].isdecimal()):
                continue
            if len(words) == 1 and words[0] in seldom:
                self._compared |= {way[0]: class_name for way in _ways_to_say(words)}
                continue
            for way in _ways_to_say(words):
                self._by_start.setdefault(way[:2], []).append((way, words, class_name))

    def first_in(self, words: Words, own: str) -> str | None:
        """Another class that these words name, in a text about the class `own`; None where there is none.

        Where it could be several, names of two words and more come before those of one, then the earlier one.
        """
        starts = [*pairwise(words), *((word,) for word in words)]  # many names begin with "black", few "black footed"
        if self._by_start.keys().isdisjoint(starts):
            return self._compared_with(words, own)
        for start in starts:
            for way, name, class_name in self._by_start.get(start, ()):
                if class_name != own and _speak_of(words, way) and not _holds(self._own[own], name):
                    return class_name
        return self._compared_with(words, own)

    def _compared_with(self, words: Words, own: str) -> str | None:
        for at, word in enumerate(words):
            if word in ("unlike", "than"):
                named = next((after for after in words[at + 1 : at + 3] if after not in ("a", "an", "the")), "")
                if named in self._compared and not _holds(self._own[own], (named,)):
                    return self._compared[named]
        return None


@lru_cache(maxsize=4096)  # texts come class by class
def _ways_to_say(name: Words) -> tuple[Words, ...]:
    if not name:
        return ()
    *rest, last = name
    plurals = [f"{last}s", f"{last}es"]
    if last.endswith("y"):
        plurals.append(f"{last[:-1]}ies")
    return (name, *((*rest, plural) for plural in plurals))


def _speak_of(words: Words, way: Words) -> bool:
    """Whether these words are among the text's, and elsewhere than before "shaped" or after "shaped like (a)"."""
    starts = (at for at in range(len(words)) if words[at : at + len(way)] == way)
    return any(words[at + len(way) : at + len(way) + 1] != ("shaped",) and not _is_a_shape(words, at) for at in starts)


def _is_a_shape(words: Words, at: int) -> bool:
    if at and words[at - 1] in ("a", "an", "the"):
        at -= 1
    return at >= 2 and words[at - 2 : at] == ("shaped", "like")


def _holds(own: Words, other: Words) -> bool:
    """Whether a name has another one in it, as it stands or in the plural."""
    return any(own[at : at + len(other)] in _ways_to_say(other) for at in range(len(own) - len(other) + 1))


_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"['’]s?\b")
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
