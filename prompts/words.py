"""Lists of texts in files, and the ordinary English words that ship: what random descriptors are made of."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def shipped_words() -> tuple[str, ...]:
    """Several hundred ordinary English words, each once, lower case: `words.json`."""
    return tuple(json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8")))


def read_list(path: str | Path, what: str) -> list[str]:
    """The texts of a file in its order: one a line in .txt, a list of strings in .json, .yaml or .yml (UTF-8).

    `what` they are ("templates") is for messages. Space around a text and blank lines are dropped. Raises ValueError,
    naming the file, when it cannot be read or parsed, has none, or has something else among them.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path}: a file of {what} ends in .txt (one a line), .json or .yaml (a list)")
    try:
        content: Any = _READERS[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; a list of {what} is wanted") from None
    if not isinstance(content, list):
        raise ValueError(f"{path}: holds no list; a list of {what} is wanted")
    strangers = [item for item in content if not isinstance(item, str)]
    if strangers:
        raise ValueError(f"{path}: {strangers[0]!r} among the {what} is no text; put it in quotes")
    found = [item.strip() for item in content if item.strip()]
    if not found:
        raise ValueError(f"{path}: has no {what}")
    return found


_READERS = {".txt": str.splitlines, ".json": json.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load}
