"""Statements that no photograph shows: sounds, smells, places where a thing is found, diets, habits, fame, absences.

Better to keep ten of them than to drop one mark: a text goes only if a rule below finds its phrase in it, and even
then it stays if it also speaks of a colour, a pattern or a part (`clean_up_words.yaml`). "Is known for its red crest"
stays, "is known for its loyalty" goes. A text that says only what is not there goes even though it names a part: an
image-text model reads "lacks a crest" much as "crest". English alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .clean_up_words import clean_up_words
from .names_within import Words, without_name


def why_not_visual(text: str, words: Words, class_name: Words) -> str | None:
    """What a text speaks of instead of its looks ("sound", "place", ...), or None.

    `words` are the text's (`words_of`). Those of its class's name are no sign of looks: "The blue jay is native to
    America" goes.
    """
    if not _ABSENCE.isdisjoint(words) and _is_absence(text, without_name(words, class_name).split()):
        return "what is absent"
    if _BY_WORD.keys().isdisjoint(words):
        return None
    for word in words:
        for rule in _BY_WORD.get(word, ()):
            if rule.pattern.search(text):
                said = without_name(words, class_name).split()
                return rule.what if _signs_of_looks(rule).isdisjoint(said) else None
    return None


def _is_absence(text: str, said: list[str]) -> bool:
    """Whether a text is a plain "none visible", "no visible marks", "lacks a crest" and nothing more.

    With more than that ("no visible neck between head and body") it may tell how the thing looks.
    """
    if not _INNER_POINTS.isdisjoint(text.rstrip(".! ")) or " - " in text:
        return False
    known = clean_up_words()
    first, *rest = [word for word in said if word not in known["openings"]] or [""]
    if first in ("none", "nothing", "not"):
        return bool(rest) and known["noticeable"].issuperset(rest)
    if not 1 <= len(rest) <= 3 or not known["joining"].isdisjoint(rest):
        return False
    if first == "no":  # "no parking" is a sign
        return (len(rest) > 1 and rest[0] in known["noticeable"]) or rest[-1] in known["parts"]
    return first in ("lacks", "lack", "lacking", "without")


_ABSENCE = frozenset(("none", "nothing", "not", "no", "lacks", "lack", "lacking", "without"))
_INNER_POINTS = frozenset(",;:()./–—")


def _signs_of_looks(rule: _Rule) -> frozenset[str]:
    known = clean_up_words()
    return known["visible"] if rule.parts_are_looks else (known["visible"] | known["looks"]) - known["parts"]


class _Rule(NamedTuple):
    what: str
    words: str
    """those of which one must occur for the pattern to be tried at all: most texts have none"""
    pattern: re.Pattern[str]
    parts_are_looks: bool
    """whether a part is enough for a text to stay: no habit can be seen for being one of the tail"""


def _rule(what: str, words: str, pattern: str, *, parts_are_looks: bool = True) -> _Rule:
    return _Rule(what, words, re.compile(pattern, re.IGNORECASE | re.VERBOSE), parts_are_looks)


_PLACES = r"""(?: (?-i:[A-Z]\w+) | africa | asia | europe | australia | america | world | wild | tropics | region | area
    | countr(?:y|ies) | \w*forest | woods | woodland | grassland | wetland | marsh | swamp | river | lake | stream | sea
    | ocean | coast | desert | mountain | garden | field | park | farm | meadow | savanna | jungle | water | household
    | kitchen | restaurant )s?\b"""
_NOISE = (
    r"(?: calls? | songs? | voice | cry | chirps? | sounds? | noises? )\b (?! \s(?:hole|board|bar|box|button|sign))"
)

_RULES = (
    _rule(
        "sound",
        "sound sounds song songs call calls voice cry chirp chirps chirping sings noise noises barks",
        rf"""\b(?: sounds?\s(?:like|of|similar)\b
          | (?:makes?|emits?|produces?|utters?)\s(?:\S+\s){{0,4}}{_NOISE}
          | (?:loud|harsh|melodious|musical|shrill|distinctive|raspy|high-pitched|low-pitched|whistling|bubbling
              |warbling|trilling|flute-like)
            (?:,\s\S+)?\s(?:\S+\s)?{_NOISE}
          | (?:its|the|their)\s(?:calls?|songs?|voice|cry)\s(?:is|are|sounds?|consists?|resembles?)\b
          | sings\b | chirps\b | chirping\b | barks\s(?:loudly|at|often)\b )""",
    ),
    _rule("sound", "vocalization vocalizations vocalisation vocalizes birdsong", r"vocali[sz] | birdsong"),
    _rule(
        "smell or taste",
        "smell smells scent scents aroma odor odour taste tastes flavor flavors flavour flavours delicious",
        r"""\b(?: (?:smells?|tastes?)\s(?:like|of|sweet|sour|good|bad|strongly|delicious|bitter|salty)\b
          | (?:sweet|strong|pleasant|unpleasant|pungent|fragrant|rich|savou?ry|tangy|spicy|bitter|salty|sour|mild|nutty
              |earthy|distinctive|buttery|smoky|delicious|fresh|faint|heavy|musky|fruity|creamy)
            \s(?:\S+\s){0,2}(?:smell|scent|aroma|odou?r|taste|flavou?r)s?\b
          | (?:has|with|have)\s(?:a|an|its)\s(?:\S+\s){0,3}(?:smell|scent|aroma|odou?r|taste|flavou?r)\b
          | tastes\b | flavou?rs?$ | delicious\b(?!-look) )""",
    ),
    _rule(
        "place",
        "found native endemic indigenous inhabits distributed living lives live habitat habitats range widespread "
        "common seen",
        rf"""\b(?: (?:found|distributed|widespread|common|living|lives?)\s(?:\w+\s)?
              (?:in|across|throughout|along|near|around|from)\s(?:\S+\s){{0,4}}?{_PLACES}
          | (?:^|(?:often|commonly|usually|frequently|typically|mostly|mainly|sometimes|is|are|be)\s)seen\s
              (?:in|across|throughout|along|near|around)\s(?:\S+\s){{0,2}}?{_PLACES}
          | (?:native|endemic|indigenous)\sto\b | inhabits\b | lives\sin\b
          | natural\shabitats?\b | habitats?\s(?:is|are|includes?)\b | range\s(?:extends|covers|includes)\b )""",
    ),
    _rule(
        "diet",
        "eats feeds feeding diet preys prey forages hunts carnivorous herbivorous omnivorous insectivorous",
        r"""\b(?: (?:eats|forages|hunts)\b | (?:feeds|feeding|preys|prey)\s(?:\w+\s)?on\b
          | (?:its|a|their|the)\s(?:\S+\s){0,2}diet\b | diet\s(?:of|consists|includes)\b
          | (?:^|\b(?:is|are|an?)\s)(?:carni|herbi|omni|insecti)vorous(?:\s\w+)?$ )""",
    ),
    _rule(
        "habits",
        "migrates migratory migration migrations nocturnal mates nests nest breeds temperament personality disposition "
        "nature companion breed animal intelligent intelligence playful loyal friendly lifespan territorial hibernates",
        r"""\b(?: migrates | migratory\s(?:bird|species|animal)s? | (?:annual|long)\smigrations?
          | nocturnal\s(?:animal|bird|habits) | is\snocturnal | mates\sfor\slife | hibernates | lifespan\sof
          | (?:nests|breeds)\s(?:in|on|near) | (?:builds|makes)\s(?:its|their)\snests?
          | (?:friendly|gentle|loyal|calm|playful|affectionate|intelligent|energetic|docile)\s(?:and\s\w+\s)?
            (?:temperament|personality|disposition|nature|companion|breed|animal)
          | (?:is|are|very|highly|known\sto\sbe)\s(?:\w+\sand\s)?(?:intelligent|playful|loyal|friendly|territorial)
          | its\s(?:\w+\s)?(?:temperament|personality|intelligence) )\b""",
    ),
    _rule("habits", "habit habits", r"\bhabits?\sof\s(?!growing\b)\w+ing\b", parts_are_looks=False),
    _rule(
        "fame",
        "known famous renowned popular prized noted beloved",
        r"""\b(?: (?:known|famous|renowned|prized|noted|beloved|popular)\s(?:for|as|among|in|with)
          | (?:is|are|most|very|widely|extremely)\s(?:popular|famous|beloved) )\b""",
    ),
    _rule(
        "history",
        "built introduced invented discovered designed founded manufactured developed originated originates dates "
        "history bred",
        r"""\b(?: (?:was|were|been|first|originally)\s(?:\w+\s)?
              (?:built|introduced|invented|discovered|founded|manufactured|developed|bred|designed)
              \s(?:in|by|for|during|around|as)
          | (?:originated|originates)\s(?:in|from) | dates\s(?:back|from) | (?:long|rich)\shistory )\b""",
    ),
    _rule(
        "price or figures",
        "costs cost price priced expensive affordable weighs weighing horsepower speed passengers fuel calories "
        "protein",
        r"""\b(?: costs?\s(?:\w+\s){0,2}[$€£\d] | price\s(?:is\b|of\s[$€£\d]|range\b)
          | priced\s(?:at|from|around|between)\b
          | (?:is|are|very|relatively|an)\s(?:expensive|affordable)(?:\s\w+)?$
          | weigh(?:s|ing)\s(?:\w+\s){0,3}\d | \d+\shorsepower\b | (?:top|maximum|cruising)\sspeed\b
          | (?:seats|carries|accommodates|capacity\s(?:of|for))\s(?:\w+\s){0,3}passengers\b
          | fuel\s(?:econom|efficien) | (?:high|rich|low)\sin\s(?:protein|calories)\b )""",
    ),
)

_BY_WORD: dict[str, list[_Rule]] = {}
for _each in _RULES:
    for _word in _each.words.split():
        _BY_WORD.setdefault(_word, []).append(_each)
