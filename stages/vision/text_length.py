"""How many tokens a text takes of a model's text tower, which cuts what is longer than its context."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from stages.vision.names import CONFIG, FOLDER


def tokenizer_of(name: str) -> str:
    """What tells one text tower's way of counting from another's: its configuration in a folder, else its name."""
    if not name.startswith(FOLDER):
        return name
    config = json.loads((Path(name.removeprefix(FOLDER)) / CONFIG).read_text(encoding="utf-8"))
    text = config.get("model_cfg", config).get("text_cfg", {})
    told = {key: text.get(key) for key in ("context_length", "vocab_size", "hf_tokenizer_name")}
    return ", ".join(f"{key} {value}" for key, value in told.items() if value is not None) or "CLIP's"


def token_counter(name: str) -> tuple[Callable[[Sequence[str]], list[int]], int]:
    """A function texts -> tokens of each, start and end included, and the tower's context length (CLIP: 77).

    `name` as `load_tower` takes it; only its tokenizer is loaded.
    """
    import open_clip

    tokenizer = open_clip.get_tokenizer(name)
    if hasattr(tokenizer, "encode"):  # CLIP's own; `encode` leaves out start and end

        def count(texts: Sequence[str]) -> list[int]:
            return [len(tokenizer.encode(text)) + 2 for text in texts]

    else:

        def count(texts: Sequence[str]) -> list[int]:
            return [len(ids) for ids in tokenizer.tokenizer(list(texts))["input_ids"]] if texts else []

    return count, tokenizer.context_length
