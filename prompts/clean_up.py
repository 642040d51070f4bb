"""Clean-up: the descriptors worth keeping of what a language model answered, and for each other one why it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .answers import Descriptor
from .chatter import is_chatter, is_refusal
from .names_within import OtherNames, Words, is_name, name_words, without_name, words_of
from .not_visual import why_not_visual
from .one_idea import split_ideas
from .phrasing import Form


class Dropped(NamedTuple):
    """A descriptor that was not kept."""

    class_name: str
    text: str
    """as it would have been kept; the answer's own text where nothing was left of it"""
    reason: str
    """one of `REASONS`"""
    detail: str
    """what exactly, for people"""


REASONS = (
    "empty",
    "refusal",
    "chatter",
    "class name alone",
    "another class",
    "not visual",
    "duplicate",
    "too long",
    "shared by most classes",
    "beyond per_class",
)
"""why a descriptor goes, in the order in which they are looked at; the first that applies is told"""


def clean_descriptors(
    answers: Mapping[str, Sequence[Descriptor]],
    *,
    form: Form,
    most: int | None,
    max_tokens: int | None,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> tuple[dict[str, list[Descriptor]], list[Dropped]]:
    """The descriptors to keep of each class, and the others with their reasons; classes and texts keep their order.

    Texts are freed of numbering, markdown and quotes (`plain_text`) and cut into ideas (`split_ideas`). An idea goes if
    it is a refusal or chatter, is the class's name and nothing more, names another class (`OtherNames`), is not visual
    (`why_not_visual`), says what an earlier one of its class said (case, articles and punctuation aside), or has more
    than `max_tokens` tokens, start and end counted. `count_tokens` counts those of many texts at once; it is not called
    where `max_tokens` is None.

    An idea that more than half of the classes share, and at least three (of two classes both), tells nothing apart and
    goes from all of them, the class's own name aside; what fewer share stays, since near relatives share marks. No
    class is emptied by this: one that has shared ideas alone keeps the one that fewest share, the first of equals. Of
    two classes the other keeps that one too: had one of them alone "two wings", every pair of wings would speak for it.

    At last the first `most` ideas of a class stay (None: all).

    Every class of `answers` is in the result, perhaps with an empty list. Cleaning what was kept changes nothing.
    """
    ideas = [idea for class_name, found in answers.items() for idea in _ideas_of(class_name, found, form)]
    _drop_by_their_words(ideas, answers)
    _drop_repeats(ideas)
    if max_tokens is not None:
        _drop_long(ideas, max_tokens, count_tokens)
    _drop_shared(ideas, len(answers))
    if most is not None:
        _drop_beyond(ideas, most)
    kept: dict[str, list[Descriptor]] = {class_name: [] for class_name in answers}
    for idea in _left(ideas):
        kept[idea.class_name].append(Descriptor(idea.text, idea.aspect))
    return kept, [Dropped(idea.class_name, idea.text, *idea.dropped) for idea in ideas if idea.dropped]


_ARTICLES = frozenset(("a", "an", "the"))
_NOTHING = frozenset((("n", "a"), ("none",), ("null",), ("unknown",), ("not", "applicable")))


@dataclass(slots=True)
class _Idea:
    class_name: str
    text: str
    aspect: str | None
    words: Words
    said: Words
    """what makes two ideas the same: their words, articles aside"""
    dropped: tuple[str, str] | None = None
    """reason and detail"""


def _ideas_of(class_name: str, found: Iterable[Descriptor], form: Form) -> Iterable[_Idea]:
    for descriptor in found:
        aspect = " ".join((descriptor.aspect or "").split()) or None
        ideas = split_ideas(descriptor.text, form)
        if not ideas:
            yield _Idea(class_name, descriptor.text, aspect, (), (), ("empty", "nothing is left of it"))
        for text in ideas:
            words = words_of(text)
            said = tuple([word for word in words if word not in _ARTICLES])
            yield _Idea(class_name, text, aspect, words, said)


def _left(ideas: Iterable[_Idea]) -> list[_Idea]:
    return [idea for idea in ideas if idea.dropped is None]


def _drop_by_their_words(ideas: Sequence[_Idea], class_names: Collection[str]) -> None:
    names = OtherNames(class_names)
    own = {class_name: name_words(class_name) for class_name in class_names}
    for idea in _left(ideas):
        if not idea.said or idea.words in _NOTHING:
            idea.dropped = "empty", "says nothing"
        elif is_refusal(idea.text):
            idea.dropped = "refusal", "the model declines"
        elif is_chatter(idea.text):
            idea.dropped = "chatter", "speaks to the reader, not of the class"
        elif is_name(idea.said, own[idea.class_name]):
            idea.dropped = "class name alone", "says nothing but the name"
        elif other := names.first_in(idea.words, idea.class_name):
            idea.dropped = "another class", f"names {other}"
        elif topic := why_not_visual(idea.text, idea.words, own[idea.class_name]):
            idea.dropped = "not visual", f"speaks of {topic}"


def _drop_repeats(ideas: Sequence[_Idea]) -> None:
    first: dict[tuple[str, Words], str] = {}
    for idea in _left(ideas):
        key = idea.class_name, idea.said
        if key in first:
            idea.dropped = "duplicate", f"says the same as {first[key]!r}"
        else:
            first[key] = idea.text


def _drop_long(ideas: Sequence[_Idea], most: int, count_tokens: Callable[[Sequence[str]], Sequence[int]]) -> None:
    left = _left(ideas)
    texts = list(dict.fromkeys(idea.text for idea in left))
    counts = dict(zip(texts, count_tokens(texts), strict=True)) if texts else {}
    for idea in left:
        if counts[idea.text] > most:
            idea.dropped = "too long", f"{counts[idea.text]} of {most} tokens"


def _drop_shared(ideas: Sequence[_Idea], classes: int) -> None:
    own = {class_name: name_words(class_name) for class_name in {idea.class_name for idea in ideas}}
    left = [(idea, without_name(idea.said, own[idea.class_name])) for idea in _left(ideas)]
    sharing = Counter(said for said, _ in {(said, idea.class_name) for idea, said in left})
    fewest = {}  # an idea of each class: it has none that fewer share
    for idea, said in left:
        if idea.class_name not in fewest or sharing[said] < sharing[fewest[idea.class_name][1]]:
            fewest[idea.class_name] = idea, said
    needed = {said for _, said in fewest.values()} if classes == 2 else set()
    for idea, said in left:
        shared = sharing[said] * 2 > classes and sharing[said] >= min(3, max(2, classes))
        if shared and idea is not fewest[idea.class_name][0] and said not in needed:
            idea.dropped = "shared by most classes", f"{sharing[said]} of {classes} classes have it"


def _drop_beyond(ideas: Sequence[_Idea], most: int) -> None:
    seen: Counter[str] = Counter()
    for idea in _left(ideas):
        seen[idea.class_name] += 1
        if seen[idea.class_name] > most:
            idea.dropped = "beyond per_class", f"number {seen[idea.class_name]}, {most} are kept"
