"""What weights are called in a fingerprint: what the files hold, not where they lie."""

from __future__ import annotations

import hashlib
import json
import shutil

import open_clip
import pytest

from stages.settings import DinoGuide, ModelSettings
from stages.stage import NotKnownYet
from stages.vision.towers import ModelError
from stages.weights import (
    check_unchanged,
    guide_weights_id,
    is_resolved,
    is_weights_file,
    load_model,
    model_weights_id,
    resolve_weights,
)


@pytest.fixture
def folder(tmp_path):
    """A local model's two files in a folder."""
    place = tmp_path / "clip"
    place.mkdir()
    (place / "open_clip_config.json").write_text("{}")
    (place / "open_clip_model.safetensors").write_bytes(b"weights")
    return place


def local(folder, cache) -> str:
    return model_weights_id(ModelSettings(name=f"local-dir:{folder}"), str(cache))


def test_a_local_model_is_its_two_files_wherever_they_lie(folder, tmp_path):
    before = local(folder, tmp_path / "cache.json")
    moved = folder.rename(tmp_path / "moved")
    assert local(moved, tmp_path / "cache.json") == before
    (moved / "open_clip_config.json").write_text('{"other": 1}')
    changed = local(moved, tmp_path / "cache.json")
    (moved / "open_clip_model.safetensors").write_bytes(b"other weights")
    assert len({before, changed, local(moved, tmp_path / "cache.json")}) == 3


def test_a_missing_file_is_named(folder, tmp_path):
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"open_clip_model\.safetensors"):
        local(folder, tmp_path / "cache.json")


def test_the_same_weights_file_in_two_architectures_is_two_models(tmp_path):
    file, cache = tmp_path / "w.pt", str(tmp_path / "cache.json")
    file.write_bytes(b"weights")
    names = {model_weights_id(ModelSettings(name=name, weights=str(file)), cache) for name in ("ViT-B-16", "ViT-B-32")}
    assert len(names) == 2


def test_a_weights_file_is_what_it_holds_wherever_it_lies(tmp_path):
    (tmp_path / "clip").mkdir()
    first, second = tmp_path / "w.safetensors", tmp_path / "clip/model.safetensors"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    by_file, by_folder = ModelSettings(weights=str(first)), ModelSettings(weights=str(second.parent))
    cache = str(tmp_path / "cache.json")
    assert model_weights_id(by_file, cache) == model_weights_id(by_folder, cache)
    second.unlink()
    with pytest.raises(FileNotFoundError, match=r"clip has none of model\.safetensors"):
        model_weights_id(by_folder, cache)


def test_what_decides_the_activation_of_a_file_is_part_of_its_identity(tmp_path):
    file, cache = tmp_path / "model.safetensors", str(tmp_path / "cache.json")
    file.write_bytes(b"weights")

    def identity(activation: str = "auto") -> str:
        return model_weights_id(ModelSettings(weights=str(file), activation=activation), cache)

    names = {identity(), identity("gelu"), identity("quick_gelu")}
    for activation in ("gelu", "quick_gelu"):
        towers = {name: {"hidden_act": activation} for name in ("text_config", "vision_config")}
        (tmp_path / "config.json").write_text(json.dumps(towers))
        names.add(identity())
    assert len(names) == 5
    assert identity("gelu") in names, "a setting needs no config"


def test_what_the_config_beside_a_file_says_is_part_of_its_identity(tmp_path):
    file, cache = tmp_path / "open_clip_model.safetensors", str(tmp_path / "cache.json")
    file.write_bytes(b"weights")
    model, names = ModelSettings(weights=str(tmp_path)), set()
    names.add(model_weights_id(model, cache))
    for quick in (True, False):
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": quick}}))
        names.add(model_weights_id(model, cache))
    assert len(names) == 3
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": {"resize_mode": "squash"}}')
    with pytest.raises(ModelError, match=r"resize_mode squash.* 'local-dir:"):
        model_weights_id(model, cache)


def test_a_guide_is_what_its_file_holds(tmp_path):
    file, cache = tmp_path / "dino.pth", str(tmp_path / "cache.json")
    file.write_bytes(b"weights")
    by_file = guide_weights_id(DinoGuide(weights=str(file)), cache)
    assert by_file == hashlib.sha256(b"weights").hexdigest()
    file.write_bytes(b"other weights")
    assert guide_weights_id(DinoGuide(weights=str(file)), cache) != by_file


@pytest.mark.parametrize(
    ("weights", "is_file"),
    [
        ("openai", False),
        ("laion2b_s34b_b79k", False),
        ("w.pt", True),
        ("models/openai", True),
        ("clip.safetensors", True),
    ],
)
def test_a_tag_is_told_from_a_path(weights, is_file):
    assert is_weights_file(weights) is is_file


def test_what_a_public_name_stands_for_is_known_only_after_it_was_downloaded(tmp_path):
    with pytest.raises(NotKnownYet, match="known after the weights are downloaded"):
        model_weights_id(ModelSettings(weights="openai"), str(tmp_path / "cache.json"))
    with pytest.raises(NotKnownYet, match="known after the weights are downloaded"):
        guide_weights_id(DinoGuide(), str(tmp_path / "cache.json"))


@pytest.fixture
def published(site, monkeypatch):
    """The site's path of a weights file under a tag of ViT-B-32 that open_clip knows for the test's time."""
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "ours", {"hf_hub": "owner/clip/ours.pt"})
    path = "/owner/clip/resolve/main/ours.pt"
    site.files[path] = b"not looked into"
    return path


def test_a_tag_is_downloaded_once_and_then_stands_for_the_hash_of_what_came(site, published, tmp_path):
    model, cache = ModelSettings(name="ViT-B-32", weights="ours"), str(tmp_path / "store" / "weights.json")
    assert not is_resolved(model, cache)
    resolve_weights(model, cache, "run")
    expected = hashlib.sha256(site.files[published]).hexdigest()
    assert model_weights_id(model, cache) == f"ViT-B-32:{expected}:gelu"
    resolve_weights(model, str(tmp_path / "another" / "weights.json"), "run")
    assert model_weights_id(model, str(tmp_path / "another" / "weights.json")) == f"ViT-B-32:{expected}:gelu"
    assert site.fetched == [published]


def test_a_setting_that_contradicts_a_public_model_is_refused_while_planning(published, tmp_path):
    model, cache = ModelSettings(name="ViT-B-32", weights="ours"), str(tmp_path / "store" / "weights.json")
    resolve_weights(model, cache, "run")
    stated = model.model_copy(update={"activation": "gelu"})
    assert model_weights_id(stated, cache) == model_weights_id(model, cache)
    wrong = model.model_copy(update={"activation": "quick_gelu"})
    with pytest.raises(ModelError, match=r"model\.activation is quick_gelu, but ViT-B-32 ours says gelu"):
        model_weights_id(wrong, cache)


def test_a_public_model_that_was_changed_since_is_refused_when_it_is_loaded(site, published, tmp_path):
    model, cache = ModelSettings(name="ViT-B-32", weights="ours"), str(tmp_path / "store" / "weights.json")
    resolve_weights(model, cache, "run")
    planned = model_weights_id(model, cache)
    check_unchanged(model, cache, planned)
    shutil.rmtree(tmp_path / "hub")  # another node, where nothing is in the cache yet
    site.files[published] = b"changed since"
    with pytest.raises(ModelError, match=r"ViT-B-32 ours was changed where it is published .*models\.json notes"):
        load_model(model, cache, planned)


def test_a_guide_from_timms_hub_stands_for_the_hash_of_what_came(tmp_path, monkeypatch):
    file = tmp_path / "hub.safetensors"
    file.write_bytes(b"published")
    monkeypatch.setattr("stages.vision.dino.download_guide", lambda name: file)
    guide, cache = DinoGuide(name="test_vit"), str(tmp_path / "store" / "weights.json")
    assert not is_resolved(guide, cache)
    resolve_weights(guide, cache, "run")
    assert is_resolved(guide, cache)
    assert guide_weights_id(guide, cache) == hashlib.sha256(b"published").hexdigest()
    assert guide_weights_id(DinoGuide(name="test_vit", weights=str(file)), cache) == guide_weights_id(guide, cache)
    planned = guide_weights_id(guide, cache)
    check_unchanged(guide, cache, planned)
    file.write_bytes(b"published anew")
    with pytest.raises(ModelError, match="timm test_vit was changed where it is published"):
        check_unchanged(guide, cache, planned)


def test_a_local_model_is_loaded_with_its_setting(tiny_model, tmp_path):
    cache = str(tmp_path / "weights.json")
    planned = local(tiny_model, cache)
    tower = load_model(ModelSettings(name=f"local-dir:{tiny_model}"), cache, planned)
    assert tower.encode_texts(["a wren"]).shape == (1, 24)
    with pytest.raises(ModelError, match=r"model\.activation says quick_gelu"):
        load_model(ModelSettings(name=tower.name, activation="quick_gelu"), cache, planned)


def test_local_weights_other_than_the_planned_ones_are_refused_where_they_are_loaded(folder, tmp_path):
    model, cache = ModelSettings(name=f"local-dir:{folder}"), str(tmp_path / "cache.json")
    planned = model_weights_id(model, cache)
    (folder / "open_clip_model.safetensors").write_bytes(b"another node's weights")
    with pytest.raises(ModelError, match=r"local-dir:.* are not those that were planned with"):
        load_model(model, cache, planned)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights of local-dir:.*open_clip_model\.safetensors"):
        load_model(model, cache, planned)


def test_a_guides_local_file_other_than_the_planned_one_is_refused(tmp_path):
    file, cache = tmp_path / "dino.pth", str(tmp_path / "cache.json")
    file.write_bytes(b"weights")
    guide = DinoGuide(weights=str(file))
    planned = guide_weights_id(guide, cache)
    check_unchanged(guide, cache, planned)
    file.write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"dino\.pth\) on .* are not those that were planned with"):
        check_unchanged(guide, cache, planned)


def test_a_tag_that_is_none_is_refused_before_any_download(tmp_path):
    with pytest.raises(ModelError, match="neither a file nor one of its tags; did you mean openai"):
        resolve_weights(ModelSettings(name="ViT-B-32", weights="openay"), str(tmp_path / "weights.json"), "run")
