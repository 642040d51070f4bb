"""What weights are called in a fingerprint: what the files hold, not where they lie."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import open_clip
import pytest

from stages.settings import DinoGuide, ModelSettings
from stages.stage import NotKnownYet
from stages.vision.towers import ModelError
from stages.weights import guide_weights_id, is_resolved, is_weights_file, model_weights_id, resolve_model


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


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A weights file behind a real HTTP server, under a tag of ViT-B-32 that open_clip knows for the test's time."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "some-weights.pt").write_bytes(b"not looked into")
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tag = {"url": f"http://127.0.0.1:{server.server_port}/some-weights.pt"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "ours", tag)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield served / "some-weights.pt"
    server.shutdown()


def test_a_tag_is_downloaded_once_and_then_stands_for_the_hash_of_what_came(published, tmp_path):
    model, cache = ModelSettings(name="ViT-B-32", weights="ours"), str(tmp_path / "store" / "weights.json")
    assert not is_resolved(model, cache)
    resolve_model(model, cache, "run")
    expected = hashlib.sha256(published.read_bytes()).hexdigest()
    assert model_weights_id(model, cache) == f"ViT-B-32:{expected}"
    published.unlink()
    resolve_model(model, str(tmp_path / "another" / "weights.json"), "run")
    assert model_weights_id(model, str(tmp_path / "another" / "weights.json")) == f"ViT-B-32:{expected}"


def test_a_tag_that_is_none_is_refused_before_any_download(tmp_path):
    with pytest.raises(ModelError, match="neither a file nor one of its tags; did you mean openai"):
        resolve_model(ModelSettings(name="ViT-B-32", weights="openay"), str(tmp_path / "weights.json"), "run")
