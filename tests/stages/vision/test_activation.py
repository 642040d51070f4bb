"""GELU or QuickGELU: never a guess, and never the one that the weights contradict."""

from __future__ import annotations

import math
from pathlib import Path

import open_clip
import pytest
import torch

from stages.vision.activation import config_activation, file_activation, tag_activation
from stages.vision.layouts import Weights
from stages.vision.model_error import ModelError


def weights(layout: str, folder: Path, *, rounded: bool = False) -> Weights:
    """A few tensors in a layout; `rounded` as OpenAI's are."""
    value = 0.5 if rounded else 0.1  # fp16 holds one half exactly, and a tenth not
    tensors = {
        "logit_scale": torch.tensor(math.log(100)),
        "visual.conv1.weight": torch.full((32, 3, 8, 8), value),
        "token_embedding.weight": torch.full((8, 4), 0.1),
    }
    return Weights(folder / "model.safetensors", layout, tensors)


def write_config(folder: Path, activation: str) -> None:
    (folder / "config.json").write_text(
        f'{{"text_config": {{"hidden_act": "{activation}"}}, "vision_config": {{"hidden_act": "{activation}"}}}}'
    )


@pytest.mark.parametrize(
    ("name", "layout", "config", "rounded", "setting", "expected"),
    [
        ("ViT-B-32", "OpenAI", None, False, "auto", "quick_gelu"),
        ("ViT-B-32", "OpenAI", None, False, "quick_gelu", "quick_gelu"),
        ("ViT-B-32-quickgelu", "OpenAI", None, False, "auto", "quick_gelu"),
        ("ViT-B-32", "Hugging Face", "gelu", False, "auto", "gelu"),
        ("ViT-B-32", "Hugging Face", "quick_gelu", False, "auto", "quick_gelu"),
        ("ViT-B-32", "Hugging Face", None, False, "gelu", "gelu"),
        ("ViT-B-32", "open_clip", None, False, "auto", "gelu"),
        ("ViT-B-32", "open_clip", None, False, "quick_gelu", "quick_gelu"),
        ("ViT-B-32-quickgelu", "open_clip", None, False, "auto", "quick_gelu"),
        ("ViT-B-32-quickgelu", "open_clip", None, True, "auto", "quick_gelu"),
        ("ViT-B-32", "open_clip", None, True, "gelu", "gelu"),
    ],
)
def test_a_files_activation_is_what_layout_config_name_or_setting_say(
    name, layout, config, rounded, setting, expected, tmp_path
):
    if config:
        write_config(tmp_path, config)
    assert file_activation(name, weights(layout, tmp_path, rounded=rounded), setting) == expected


@pytest.mark.parametrize(
    ("name", "layout", "config", "setting", "message"),
    [
        ("ViT-B-32", "OpenAI", None, "gelu", "OpenAI's layout says quick_gelu, model.activation says gelu"),
        ("ViT-B-32", "Hugging Face", "gelu", "quick_gelu", "config.json beside it says gelu, model.activation says"),
        ("ViT-B-32-quickgelu", "Hugging Face", "gelu", "auto", "architecture's name says quick_gelu, the config.json"),
        ("ViT-B-32-quickgelu", "open_clip", None, "gelu", "architecture's name says quick_gelu, model.activation says"),
    ],
)
def test_two_that_differ_are_both_told(name, layout, config, setting, message, tmp_path):
    if config:
        write_config(tmp_path, config)
    with pytest.raises(ModelError, match=message):
        file_activation(name, weights(layout, tmp_path), setting)


@pytest.mark.parametrize(("layout", "why"), [("Hugging Face", "no CLIP config.json"), ("open_clip", "rounded to fp16")])
def test_where_nothing_tells_the_setting_is_asked_for(layout, why, tmp_path):
    with pytest.raises(ModelError, match=rf"{why}.* Set model\.activation to quick_gelu"):
        file_activation("ViT-B-32", weights(layout, tmp_path, rounded=True))


def test_a_tag_says_its_own_activation_and_a_setting_may_only_repeat_it():
    assert tag_activation("ViT-B-32", "openai") == "quick_gelu"
    assert tag_activation("ViT-B-32", "laion2b_s34b_b79k", "gelu") == "gelu"
    with pytest.raises(ModelError, match=r"the tag openai says quick_gelu, model\.activation says gelu"):
        tag_activation("ViT-B-32", "openai", "gelu")
    assert open_clip.get_pretrained_cfg("ViT-B-32", "openai")["quick_gelu"]


def test_a_models_own_config_says_it(tmp_path):
    config = tmp_path / "open_clip_config.json"
    config.write_text('{"model_cfg": {"quick_gelu": true}}')
    assert config_activation("local-dir:x", config) == "quick_gelu"
    with pytest.raises(ModelError, match=r"its open_clip_config\.json says quick_gelu, model\.activation says gelu"):
        config_activation("local-dir:x", config, "gelu")
