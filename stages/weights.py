"""What a model's weights are called in a fingerprint: the hash of the file, not its name."""

from __future__ import annotations

import json
from pathlib import Path

from stages.settings import DinoGuide, ModelSettings
from stages.stage import NotKnownYet
from storage.files import exists, read_bytes, write_atomic
from storage.fingerprint import digest, file_sha256

LOCAL_FOLDER_FILES = ("open_clip_config.json", "open_clip_model.safetensors")


def model_weights_id(model: ModelSettings, cache: str) -> str:
    """Identity of a CLIP model: its name and the hash of its weights.

    `cache` remembers hashes of files. Raises FileNotFoundError naming a missing file, and NotKnownYet for a public
    model that was not resolved (`resolve_model`) in this store.
    """
    if model.name.startswith("local-dir:"):
        folder = Path(model.name.removeprefix("local-dir:"))
        return "local:" + digest([file_sha256(str(folder / name), cache=cache) for name in LOCAL_FOLDER_FILES])
    if is_public(model):
        found = _resolved(cache).get(_public_name(model))
        if found is None:
            raise NotKnownYet("the weights are downloaded")
        return f"{model.name}:{found}"
    return f"{model.name}:{file_sha256(model.weights, cache=cache)}"


def is_public(model: ModelSettings) -> bool:
    """Whether the weights are somebody's published ones, named and not given as a file."""
    return model.name.startswith("hf-hub:") or (model.weights is not None and not is_weights_file(model.weights))


def is_resolved(model: ModelSettings, cache: str) -> bool:
    """Whether this store knows what the model's name and tag stand for."""
    return not is_public(model) or _public_name(model) in _resolved(cache)


def resolve_model(model: ModelSettings, cache: str, run: str) -> None:
    """Note which weights a public name stands for, at its first use in a store. Downloads them; raises ModelError."""
    from stages.vision.towers import fetch_weights

    found = {_public_name(model): file_sha256(fetch_weights(model.name, model.weights), cache=cache)}
    text = json.dumps(_resolved(cache) | found, indent=1, sort_keys=True)
    write_atomic(_resolved_path(cache), text.encode(), run)


def _public_name(model: ModelSettings) -> str:
    return model.name if model.weights is None else f"{model.name} {model.weights}"


def _resolved_path(cache: str) -> str:
    return str(Path(cache).with_name("models.json"))


def _resolved(cache: str) -> dict[str, str]:
    path = _resolved_path(cache)
    return json.loads(read_bytes(path)) if exists(path) else {}


def guide_weights_id(guide: DinoGuide, cache: str) -> str:
    """Identity of a guide's weights: the file's hash, or the name that timm downloads."""
    return file_sha256(guide.weights, cache=cache) if guide.weights is not None else f"timm:{guide.name}"


def is_weights_file(weights: str) -> bool:
    """Whether `weights` is a path, not one of open_clip's tags, which have neither separators nor suffixes."""
    return "/" in weights or Path(weights).suffix in {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}
