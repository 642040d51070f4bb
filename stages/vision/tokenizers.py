"""Does a model's tokenizer need a package that is not installed? Answered from its configuration, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from stages.vision.model_error import ModelError


def check_tokenizer(name: str, config: Mapping[str, Any]) -> None:
    """Raise ModelError where `config`, a model's or a whole `open_clip_config.json`, wants a tokenizer not to be had.

    Those of SigLIP, of multilingual and of some CLIPA models are read by the transformers package.
    """
    text = (config.get("model_cfg") or config).get("text_cfg") or {}
    wanted = text.get("hf_tokenizer_name")
    if wanted and find_spec("transformers") is None:
        raise ModelError(
            f"model {name!r}: its tokenizer ({wanted}) needs the transformers package, which is not installed; "
            "`pip install 'fieldmark[siglip]'` brings it"
        )
