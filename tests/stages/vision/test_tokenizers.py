"""Whether a tokenizer can be had is known before anything is downloaded."""

from __future__ import annotations

import json

import pytest

from stages.vision.model_error import ModelError
from stages.vision.names import architecture_config
from stages.vision.tokenizers import check_tokenizer


def config_of(name: str) -> dict:
    return json.loads(architecture_config(name).read_text())


def test_siglips_tokenizer_needs_a_package_that_the_message_names(monkeypatch):
    monkeypatch.setattr("stages.vision.tokenizers.find_spec", lambda package: None)
    with pytest.raises(ModelError, match=r"ViT-B-16-SigLIP'.* needs the transformers .* 'fieldmark\[siglip\]'"):
        check_tokenizer("ViT-B-16-SigLIP", config_of("ViT-B-16-SigLIP"))
    with pytest.raises(ModelError, match="its tokenizer"):
        check_tokenizer("local-dir:/siglip", {"model_cfg": config_of("ViT-B-16-SigLIP")})
    check_tokenizer("ViT-B-16", config_of("ViT-B-16"))


def test_with_the_package_every_tokenizer_will_do(monkeypatch):
    monkeypatch.setattr("stages.vision.tokenizers.find_spec", lambda package: package)
    check_tokenizer("ViT-B-16-SigLIP", config_of("ViT-B-16-SigLIP"))
