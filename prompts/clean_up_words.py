"""The words that the clean-up knows, by what they say: `clean_up_words.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml


@cache
def clean_up_words() -> Mapping[str, frozenset[str]]:
    """Lists of small-letter words by name, as the file explains them; `looks` and `visible` have the colours too.

    Of the visible ones, parts among them, one is enough to say that a text speaks of something to be seen.
    """
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    lists = {name: frozenset(words.split()) for name, words in yaml.safe_load(text).items()}
    visible = lists["visible"] | lists["colours"] | lists["parts"]
    return lists | {"visible": visible - lists["not_surely_visible"], "looks": lists["looks"] | lists["colours"]}
