"""What a model's weights are called in a fingerprint: the hash of the file, not its name."""

from __future__ import annotations

from pathlib import Path

from stages.settings import DinoGuide, ModelSettings
from storage.fingerprint import digest, file_sha256

LOCAL_FOLDER_FILES = ("open_clip_config.json", "open_clip_model.safetensors")


def model_weights_id(model: ModelSettings, cache: str) -> str:
    """Identity of a CLIP model: hashes of local files, else its public name. FileNotFoundError names a missing file."""
    if model.name.startswith("local-dir:"):
        folder = Path(model.name.removeprefix("local-dir:"))
        return "local:" + digest([file_sha256(str(folder / name), cache=cache) for name in LOCAL_FOLDER_FILES])
    if model.weights is not None and is_weights_file(model.weights):
        return f"{model.name}:{file_sha256(model.weights, cache=cache)}"
    return f"{model.name}:{model.weights or 'hub'}"


def guide_weights_id(guide: DinoGuide, cache: str) -> str:
    """Identity of a guide's weights: the file's hash, or the name that timm downloads."""
    return file_sha256(guide.weights, cache=cache) if guide.weights is not None else f"timm:{guide.name}"


def is_weights_file(weights: str) -> bool:
    """Whether `weights` is a path, not one of open_clip's tags, which have neither separators nor suffixes."""
    return "/" in weights or Path(weights).suffix in {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}
