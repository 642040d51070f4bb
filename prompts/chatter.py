"""Refusals and chatter: what a language model says where a descriptor should be."""

from __future__ import annotations

import re


def is_refusal(text: str) -> bool:
    """Whether a text begins as models begin when they decline ("I'm sorry, I can't ...", "As an AI ...")."""
    return _REFUSAL.match(text) is not None


def is_chatter(text: str) -> bool:
    """Whether a text speaks to the reader instead of about the class ("Here are nine marks", "Let me know if ...").

    A heading ("Key features:") counts as chatter. Only openings are looked at: "sure-footed stance" is a descriptor.
    """
    return text.rstrip().endswith(":") or _CHATTER.match(text) is not None


_REFUSAL = re.compile(
    r"""\W*(?:
      (?:i['’]?m|i\sam)\s(?:(?:very|really|so|truly)\s)?(?:sorry|afraid|unable|not\sable|not\ssure
        |an?\s(?:ai|large|language))
    | i\s(?:can['’]?t|cannot|can\snot|could\snot|couldn['’]?t|won['’]?t|will\snot|don['’]?t|do\snot
        |apologi[sz]e|have\sno)
    | (?:sorry|apologies|my\sapologies|unfortunately)\s?(?:[,.!—]|-\s)
    | as\san?\s(?:ai|artificial|large\slanguage|language\smodel|text-based)
    | (?:it|this|that)\s(?:is|would\sbe)\s(?:not\spossible|impossible)\sto
    | (?:there\sis\s)?(?:no|not\senough|insufficient)\s(?:\w+\s)?information\s(?:is|was|on|about|to)
    )(?:\b|(?<=\W))""",
    re.IGNORECASE | re.VERBOSE,
)
_CHATTER = re.compile(
    r"""\W*(?:
      here(?:\s(?:are|is)|['’]s)\b
    | (?:sure|certainly|of\scourse|absolutely|okay)\s?[,!.:]
    | (?:sure\sthing|no\sproblem|you['’]re\swelcome)\b
    | let\sme\s(?:know|describe|list)\b
    | (?:i\shope|hope\sthis|feel\sfree|please\s(?:note|let|feel))\b
    | (?:note|please\snote|remember)\s?(?:that|:)\s
    | (?:these|the\sfollowing|the\sabove)\s(?:\w+\s){0,2}
        (?:marks|descriptors|descriptions|features|characteristics|attributes|sentences|captions)\b
    | (?:would\syou\slike|do\syou\swant|is\sthere\sanything)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
