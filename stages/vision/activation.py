"""GELU or QuickGELU? Answered by whoever knows what the weights were trained with: layout, tag, config, name, setting.

Both have the same weights (QuickGELU is x times the sigmoid of 1.702 x), so the wrong one loads without complaint and
costs accuracy. All who know must agree: a setting may repeat what the weights say of themselves, never overrule it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import open_clip

from stages.vision.layouts import Weights, looks_like_openai
from stages.vision.model_error import ModelError
from stages.vision.weight_files import Trained, activation_beside, hugging_face_activation, open_clip_activation

Activation = Literal["auto", "gelu", "quick_gelu"]


def tag_activation(name: str, tag: str, activation: Activation = "auto") -> Trained:
    """That of an open_clip tag; ModelError where the setting says otherwise."""
    flagged = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu") or _architecture_activation(name)
    said = {f"the tag {tag}": "quick_gelu" if flagged else "gelu"}
    return _settle(f"model {name!r}", said | _setting(activation))


def config_activation(name: str, config: Path, activation: Activation = "auto") -> Trained:
    """That of a model with an `open_clip_config.json`; ModelError where the setting says otherwise."""
    said = {"its open_clip_config.json": open_clip_activation(config)}
    return _settle(f"model {name!r}", said | _setting(activation))


def file_activation(name: str, weights: Weights, activation: Activation = "auto") -> Trained:
    """The activation of a file's weights: from its layout, the configs beside it, the architecture's name, the setting.

    OpenAI's layout says QuickGELU. Hugging Face's is asked in its `config.json`, all in an `open_clip_config.json`.
    Without one, in open_clip's layout the name says it (`ViT-B-32-quickgelu`, else GELU), unless the values may be
    OpenAI's under a plain name. Raises ModelError where two of these differ, or nothing tells, and where the config
    wants images prepared otherwise than CLIP's.
    """
    layout_says = {
        "OpenAI": lambda: {"OpenAI's layout": "quick_gelu"},
        "Hugging Face": lambda: {"the config.json beside it": hugging_face_activation(weights.file)},
        "open_clip": dict,
    }[weights.layout]()
    said = {
        "the architecture's name": _architecture_activation(name),
        **layout_says,
        "the open_clip_config.json beside it": activation_beside(weights.file),
        **_setting(activation),
    }
    settled = _settle(f"weights file {weights.file} for model {name!r}", said)
    if settled is not None:
        return settled
    if weights.layout == "Hugging Face":
        why = "it is in Hugging Face's layout and has no CLIP config.json beside it"
    elif looks_like_openai(weights):
        why = "its values are rounded to fp16 and its logit scale is 100, as OpenAI's are, which want quick_gelu"
    else:
        return "gelu"
    raise ModelError(
        f"weights file {weights.file} for model {name!r} does not say its activation: {why}. "
        "Set model.activation to quick_gelu (OpenAI's, DFN's and MetaCLIP's weights) or gelu (most others)"
    )


def _settle(what: str, said: Mapping[str, Trained | None]) -> Trained | None:
    """The activation that all who know agree on, None where nobody knows; `said`: who -> what they say.

    Raises ModelError where two differ.
    """
    known = {who: activation for who, activation in said.items() if activation is not None}
    if len(set(known.values())) > 1:
        witnesses = ", ".join(f"{who} says {activation}" for who, activation in known.items())
        raise ModelError(
            f"{what}: it is not clear with which activation it was trained: {witnesses}. Mend the wrong one"
        )
    return next(iter(known.values()), None)


def _setting(activation: Activation) -> dict[str, Trained]:
    return {} if activation == "auto" else {"model.activation": activation}


def _architecture_activation(name: str) -> Trained | None:
    """An architecture's configuration names QuickGELU, or leaves the choice to the weights."""
    return "quick_gelu" if (open_clip.get_model_config(name) or {}).get("quick_gelu") else None
