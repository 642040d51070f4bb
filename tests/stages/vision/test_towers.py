"""Towers: the features of open_clip, never random weights, never a wrong activation, errors that help."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from stages.vision.crops import normalize
from stages.vision.names import check_model_name, model_names
from stages.vision.towers import ModelError, check_weights, load_tower

SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def small_architecture(tmp_path, monkeypatch):
    """A built-in name, `small`, with OpenAI's kind of tag whose weights lie in a file."""
    config, weights = tmp_path / "small.json", tmp_path / "small.safetensors"
    config.write_text(json.dumps(SMALL))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    open_clip.add_model_config(config)
    save_file(open_clip.CLIP(**SMALL).state_dict(), weights)
    tags = {"openai": {"file": str(weights), "quick_gelu": True}, "laion": {"file": str(weights)}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small", tags)
    monkeypatch.setattr("stages.vision.names.model_names", lambda: ("small", "ViT-B-32"))
    return weights


def activations(tower) -> set[type]:
    return {type(m) for m in tower.model.modules() if isinstance(m, (QuickGELU, nn.GELU))}


def test_a_tower_gives_open_clips_features(tiny_clip):
    tower = load_tower(tiny_clip(), None)
    pixels = torch.randn(2, 3, 32, 32)
    texts = ["a red beak", "a photo of a bird " * 40]
    with torch.no_grad():
        torch.testing.assert_close(tower.encode_images(pixels), tower.model.encode_image(pixels))
        tokens = open_clip.get_tokenizer(tower.name)(texts)
        torch.testing.assert_close(tower.encode_texts(texts), tower.model.encode_text(tokens))
    assert tokens[1, -1] == 49407
    assert tower.encode_texts([]).shape == (0, 24)
    assert (tower.dim, tower.image_size, tower.grid, tower.context_length) == (24, 32, 4, 16)
    assert tower.mean == (0.5, 0.4, 0.3)
    assert tower.std == (0.2, 0.2, 0.2)
    assert tower.logit_scale == pytest.approx(tower.model.logit_scale.exp().item())
    assert tower.can_crop_features


def test_many_texts_equal_texts_one_by_one(tiny_clip, monkeypatch):
    tower = load_tower(tiny_clip(), None)
    texts = [f"bird number {n}" for n in range(5)]
    together = tower.encode_texts(texts)
    monkeypatch.setattr("stages.vision.towers.TEXTS_AT_ONCE", 2)
    torch.testing.assert_close(tower.encode_texts(texts), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_touches_images_a_little_and_texts_not_at_all(tiny_clip, precision):
    name = tiny_clip()
    full, low = load_tower(name, None), load_tower(name, None, precision=precision)
    pixels = normalize(torch.randint(0, 256, (4, 3, 32, 32)), full.mean, full.std)
    exact, rough = full.encode_images(pixels), low.encode_images(pixels)
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().max() > 0
    assert torch.cosine_similarity(exact, rough).min() > 0.999
    assert torch.cosine_similarity(exact, low.cropper.features(low.cropper.tokens(pixels))).min() > 0.999
    torch.testing.assert_close(full.encode_texts(["a"]), low.encode_texts(["a"]), rtol=0, atol=0)


def test_the_activation_is_that_of_the_weights(small_architecture):
    assert activations(load_tower("small", "openai")) == {QuickGELU}
    assert activations(load_tower("small", "laion")) == {nn.GELU}


def test_a_setting_may_not_contradict_what_a_tag_says(small_architecture):
    assert activations(load_tower("small", "openai", activation="quick_gelu")) == {QuickGELU}
    with pytest.raises(ModelError, match=r"the tag laion says gelu, model\.activation says quick_gelu"):
        load_tower("small", "laion", activation="quick_gelu")


def test_a_setting_decides_where_a_file_does_not_say(small_architecture):
    assert activations(load_tower("small", str(small_architecture))) == {nn.GELU}
    assert activations(load_tower("small", str(small_architecture), activation="quick_gelu")) == {QuickGELU}


def test_a_local_folders_config_says_its_activation(tiny_clip):
    with pytest.raises(ModelError, match=r"open_clip_config\.json says gelu, model\.activation says quick_gelu"):
        load_tower(tiny_clip(), None, activation="quick_gelu")


def test_weights_come_from_a_folder_and_nobody_is_told_that_they_are_random(small_architecture, tmp_path, caplog):
    (tmp_path / "clip").mkdir()
    small_architecture.rename(tmp_path / "clip/model.safetensors")
    load_tower("small", str(tmp_path / "clip"))
    assert "No pretrained weights" not in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty has none of model\.safetensors"):
        load_tower("small", str(tmp_path / "empty"))


def test_weights_come_from_a_local_file(small_architecture, tmp_path):
    tower = load_tower("small", str(small_architecture))
    torch_file = tmp_path / "small.pt"
    torch.save({"state_dict": tower.model.state_dict()}, torch_file)
    again = load_tower("small", str(torch_file))
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(tower.encode_images(pixels), again.encode_images(pixels))


def test_the_config_beside_a_file_says_its_activation(small_architecture, tmp_path):
    (tmp_path / "dfn").mkdir()
    small_architecture.rename(tmp_path / "dfn/open_clip_model.safetensors")
    config = tmp_path / "dfn/open_clip_config.json"
    config.write_text(json.dumps({"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"resize_mode": "shortest"}}))
    assert activations(load_tower("small", str(tmp_path / "dfn"))) == {QuickGELU}
    with pytest.raises(
        ModelError, match=r"open_clip_config\.json beside it says quick_gelu, model\.activation says gelu"
    ):
        load_tower("small", str(tmp_path / "dfn"), activation="gelu")
    config.write_text(json.dumps({"preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "resize_mode": "squash"}}))
    with pytest.raises(ModelError, match=r"mean \[0\.5, 0\.5, 0\.5\], resize_mode squash.* 'local-dir:"):
        load_tower("small", str(tmp_path / "dfn"))


@pytest.mark.parametrize(
    "name", ["MobileCLIP-S1", "ViT-B-16-SigLIP", "PE-Core-B-16", "ViT-H-14-CLIPA", "ViT-H-14-378-quickgelu"]
)
def test_a_file_for_a_model_that_never_saw_images_clips_way_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.vision.tokenizers.find_spec", lambda package: package)
    (tmp_path / "model.safetensors").write_bytes(b"not looked into")
    with pytest.raises(ModelError, match=rf"{name}' cannot be had from a weights file: .* Give a tag .* 'local-dir:"):
        load_tower(name, str(tmp_path / "model.safetensors"))


def test_a_file_is_taken_where_any_tag_of_the_name_saw_images_clips_way(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not looked into")
    for name in ("ViT-L-14", "ViT-H-14-quickgelu", "RN50", "ViT-S-16"):
        assert check_weights(name, str(tmp_path / "model.safetensors")) is None


def test_a_tokenizer_that_is_lacking_is_no_damaged_file(tiny_clip, monkeypatch):
    name = tiny_clip()
    monkeypatch.setattr("stages.vision.tokenizers.find_spec", lambda package: None)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: (_ for _ in ()).throw(ImportError("no sentencepiece")))
    with pytest.raises(ModelError, match=r"needs a package that is not installed \(no sentencepiece\)"):
        load_tower(name, None)
    config = Path(name.removeprefix("local-dir:")) / "open_clip_config.json"
    document = json.loads(config.read_text())
    document["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "owner/words"
    config.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"owner/words.* 'fieldmark\[siglip\]'"):
        load_tower(name, None)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran.txt"),))


def test_a_weights_file_with_code_is_refused_and_not_run(small_architecture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ModelError, match=r"evil\.pt is damaged, or holds no weights"):
        load_tower("small", "evil.pt")
    assert not (tmp_path / "ran.txt").exists()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("ViT-B32", "openai", "unknown model 'ViT-B32'; did you mean .*ViT-B-32"),
        ("ViT-B-32", None, "needs weights: a local file, or one of its tags: openai, laion400m_e31"),
        ("ViT-B-32", "opnai", "neither a file nor one of its tags; did you mean openai"),
        ("ViT-B-32", "/nowhere/clip.safetensors", "weights file /nowhere/clip.safetensors .* does not exist"),
        ("local-dir:/nowhere", None, "there is no /nowhere/open_clip_config.json"),
        ("hf-hub:noowner", None, "must look like 'hf-hub:owner/model'"),
        ("hf-hub:owner/model", "openai", "brings its own weights"),
        ("hf-hub:owner/model@main", None, r"revisions \(@\) are not supported"),
    ],
)
def test_what_cannot_be_loaded_says_what_would_do(name, weights, message):
    with pytest.raises(ModelError, match=message):
        load_tower(name, weights)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ModelError, match="must be fp32, fp16 or bf16"):
        load_tower("ViT-B-32", "openai", precision="fp8")


def test_a_folder_without_weights_is_refused(tiny_clip):
    name = tiny_clip()
    (Path(name.removeprefix("local-dir:")) / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match="could not be loaded"):
        load_tower(name, None)


def test_weights_of_another_architecture_are_refused(small_architecture, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="does not belong to this architecture"):
        load_tower("small", str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(("name", "weights"), [("ViT-B-32", "openai"), ("hf-hub:owner/model", None)])
def test_offline_downloads_say_so(name, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"could not be downloaded\. Without a network, give weights as"):
        load_tower(name, weights)


def test_names_are_checked_against_open_clips_own_list():
    assert set(open_clip.list_models()) <= set(model_names())
    check_model_name("ViT-L-14-336-quickgelu")
    with pytest.raises(ValueError, match="did you mean"):
        check_model_name("ViT-L14")


def test_checking_a_name_imports_no_torch():
    code = (
        "import sys\nfrom stages.vision.names import check_model_name\ncheck_model_name('ViT-B-32')\n"
        "assert not {'torch', 'open_clip', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
