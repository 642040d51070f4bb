"""What weights are called in a fingerprint: what the files hold, not where they lie."""

from __future__ import annotations

import pytest

from stages.settings import DinoGuide, ModelSettings
from stages.stage import NotKnownYet
from stages.weights import guide_weights_id, is_weights_file, model_weights_id


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


def test_a_guide_is_its_file_or_the_public_name_it_is_downloaded_by(tmp_path):
    file, cache = tmp_path / "dino.pth", str(tmp_path / "cache.json")
    file.write_bytes(b"weights")
    by_file = guide_weights_id(DinoGuide(weights=str(file)), cache)
    file.write_bytes(b"other weights")
    assert guide_weights_id(DinoGuide(weights=str(file)), cache) != by_file
    assert guide_weights_id(DinoGuide(name="vit_small"), cache) == "timm:vit_small"


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
