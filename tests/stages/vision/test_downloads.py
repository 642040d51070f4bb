"""Downloads from a real HTTP server: once a node, and a clear word when there is no network."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save

from stages.vision.dino import fetch_guide_weights, load_probe
from stages.vision.model_error import ModelError
from stages.vision.towers import fetch_weights, load_tower


@pytest.fixture
def tag(site, monkeypatch):
    """A tag of ViT-B-32 whose weights lie on the site."""
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "ours", {"hf_hub": "owner/clip/ours.pt"})
    site.files["/owner/clip/resolve/main/ours.pt"] = b"not looked into"
    return "ours"


def test_two_actors_of_a_node_download_a_file_once(site, tag):
    answers: list[Path] = []

    def fetch() -> None:
        answers.extend(fetch_weights("ViT-B-32", tag))

    second = threading.Thread(target=fetch)

    def another_actor_wants_it_now(path: str) -> None:
        if len(site.fetched) == 1:
            second.start()
            second.join(timeout=0.5)  # it waits for the lock; without one it would be served and done

    site.before_sending = another_actor_wants_it_now
    fetch()
    second.join()
    assert site.fetched == ["/owner/clip/resolve/main/ours.pt"]
    assert len(answers) == 2
    assert {path.read_bytes() for path in answers} == {b"not looked into"}


@pytest.mark.parametrize(
    ("named", "published", "taken"),
    [
        ("owner/clip/", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"], "open_clip_model.safetensors"),
        ("owner/clip/", ["open_clip_pytorch_model.bin"], "open_clip_pytorch_model.bin"),
        ("owner/clip/vit.bin", ["vit.bin", "vit.safetensors"], "vit.safetensors"),
        ("owner/clip/vit.pt", ["vit.pt"], "vit.pt"),
    ],
)
def test_a_tag_on_the_hub_is_its_safetensors_where_there_are_some(named, published, taken, site, monkeypatch):
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "ours", {"hf_hub": named, "url": "unused"})
    for file in published:
        site.files[f"/owner/clip/resolve/main/{file}"] = file.encode()
    found = fetch_weights("ViT-B-32", "ours")
    assert [file.read_text() for file in found] == [taken]
    assert open_clip.download_pretrained(open_clip.get_pretrained_cfg("ViT-B-32", "ours")) == str(found[0])


def test_a_hub_model_is_its_weights_and_its_config(site):
    site.files["/owner/model/resolve/main/open_clip_model.safetensors"] = b"weights"
    site.files["/owner/model/resolve/main/open_clip_config.json"] = b"{}"
    files = fetch_weights("hf-hub:owner/model", None)
    assert [file.read_bytes() for file in files] == [b"weights", b"{}"]
    assert fetch_weights("hf-hub:owner/model", None) == files
    assert len(site.fetched) == 2


def test_a_hub_models_activation_is_its_configs(site):
    config = {
        "embed_dim": 8,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    place = "/owner/model/resolve/main/"
    site.files[f"{place}open_clip_config.json"] = json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode()
    model = open_clip.CLIP(**config).eval()
    site.files[f"{place}open_clip_model.safetensors"] = save(model.state_dict())
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            load_tower("hf-hub:owner/model", None).encode_images(pixels), model.encode_image(pixels)
        )
    with pytest.raises(ModelError, match=r"open_clip_config\.json says quick_gelu, model\.activation says gelu"):
        load_tower("hf-hub:owner/model", None, activation="gelu")


def test_a_guide_is_downloaded_once_and_looks_as_it_does_from_a_local_file(site, tmp_path):
    weights = save(timm.create_model("test_vit", num_classes=0).state_dict())
    repository = timm.get_pretrained_cfg("test_vit").hf_hub_id
    site.files[f"/{repository}/resolve/main/model.safetensors"] = weights
    (tmp_path / "guide.safetensors").write_bytes(weights)
    assert fetch_guide_weights("test_vit").read_bytes() == weights
    downloaded, local = load_probe("test_vit", None, None), load_probe("test_vit", tmp_path / "guide.safetensors", None)
    assert len(site.fetched) == 1
    pixels = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(downloaded.forward_features(pixels), local.forward_features(pixels))


def test_a_guide_without_safetensors_comes_as_a_torch_file(site):
    repository = timm.get_pretrained_cfg("test_vit").hf_hub_id
    site.files[f"/{repository}/resolve/main/pytorch_model.bin"] = b"torch"
    assert fetch_guide_weights("test_vit").read_bytes() == b"torch"


def test_a_guide_that_nobody_published_says_so():
    with pytest.raises(ModelError, match="timm publishes no weights of vit_base_patch16_gap_224"):
        fetch_guide_weights("vit_base_patch16_gap_224")


def test_offline_a_guide_in_the_cache_is_found_and_another_says_what_would_do(site, monkeypatch):
    repository = timm.get_pretrained_cfg("test_vit").hf_hub_id
    site.files[f"/{repository}/resolve/main/model.safetensors"] = b"weights"
    fetch_guide_weights("test_vit")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_guide_weights("test_vit").read_bytes() == b"weights"
    with pytest.raises(ModelError, match=r"could not be downloaded\. Without a network, give weights as the path"):
        fetch_guide_weights("vit_base_patch16_224.dino")


def test_a_tag_that_is_not_on_the_hub_says_so(monkeypatch):
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "ours", {"url": "http://127.0.0.1/ours.pt"})
    with pytest.raises(ModelError, match="the tag ours of ViT-B-32 is not published on the hub"):
        fetch_weights("ViT-B-32", "ours")


def test_a_hub_models_tokenizer_is_asked_for_before_its_weights_are_downloaded(site, monkeypatch):
    monkeypatch.setattr("stages.vision.tokenizers.find_spec", lambda package: None)
    config = {"model_cfg": {"text_cfg": {"hf_tokenizer_name": "owner/words"}}}
    site.files["/owner/model/resolve/main/open_clip_config.json"] = json.dumps(config).encode()
    site.files["/owner/model/resolve/main/open_clip_model.safetensors"] = b"weights"
    with pytest.raises(ModelError, match=r"owner/words.*pip install 'fieldmark\[siglip\]'"):
        fetch_weights("hf-hub:owner/model", None)
    assert site.fetched == ["/owner/model/resolve/main/open_clip_config.json"]
