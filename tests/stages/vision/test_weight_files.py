"""Which file is meant, and what the configuration beside it says, without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from stages.vision.model_error import ModelError
from stages.vision.weight_files import (
    CLIPS_WAY,
    activation_beside,
    find_weights_file,
    hugging_face_activation,
    open_clip_activation,
    unlike_clip,
)


def test_a_folder_means_its_safetensors_before_any_other(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"w")
    assert find_weights_file(tmp_path).name == "pytorch_model.bin"
    (tmp_path / "model.safetensors").write_bytes(b"w")
    assert find_weights_file(tmp_path).name == "model.safetensors"
    assert find_weights_file(tmp_path / "pytorch_model.bin").name == "pytorch_model.bin"


def test_what_is_lacking_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has none of model\.safetensors, .*pytorch_model\.bin"):
        find_weights_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pt"):
        find_weights_file(tmp_path / "nothing.pt")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, None),
        ({"model_type": "bert"}, None),
        ({"model_type": "clip"}, "quick_gelu"),  # transformers leaves out what is its default
        ({"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}}, "gelu"),
        ({"model_type": "clip", "text_config": None, "vision_config": {}}, "quick_gelu"),
    ],
)
def test_hugging_faces_config_says_the_activation(config, expected, tmp_path):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert hugging_face_activation(tmp_path / "model.safetensors") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text_config": {"hidden_act": "gelu"}, "vision_config": {}}', "hidden_act is gelu and quick_gelu"),
        (
            '{"text_config": {"hidden_act": "relu"}, "vision_config": {"hidden_act": "relu"}}',
            "hidden_act is relu; gelu or quick_gelu",
        ),
        ("{", r"config\.json cannot be read"),
        ("[]", r"config\.json is no configuration"),
    ],
)
def test_a_config_that_open_clip_cannot_follow_is_refused(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        hugging_face_activation(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, "gelu"), ({"model_cfg": {"quick_gelu": True}}, "quick_gelu"), ({"model_cfg": {}}, "gelu")],
)
def test_open_clips_config_says_the_activation(config, expected, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert open_clip_activation(tmp_path / "open_clip_config.json") == expected


@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({}, ""),
        (json.loads(json.dumps(CLIPS_WAY)) | {"size": 224}, ""),
        ({"mean": [0.4815, 0.4578, 0.4082]}, ""),
        ({"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]"),
        ({"mean": "imagenet"}, "mean imagenet"),
        ({"resize_mode": "squash", "interpolation": "bilinear"}, "resize_mode squash, interpolation bilinear"),
    ],
)
def test_preprocessing_other_than_clips_is_told(settings, other):
    assert unlike_clip(settings) == other


def test_without_a_config_beside_it_a_file_says_nothing(tmp_path):
    assert activation_beside(tmp_path / "model.safetensors") is None
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}, "preprocess_cfg": {}}')
    assert activation_beside(tmp_path / "model.safetensors") == "quick_gelu"


def test_planning_with_weights_imports_no_torch():
    code = "import sys\nimport stages.weights\nassert not {'torch', 'open_clip', 'timm', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
