"""What a model's weights are called in a fingerprint: the hash of the files, not their names.

A public name (a tag, `hf-hub:`, timm's) is looked up once a store: what it stands for is noted in `models.json`
beside the hashes' cache, and a file that differs from the note later is refused. Local files are compared with what
the plan found them to hold, wherever they are loaded: another node may have others at the same path.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stages.settings import DinoGuide, ModelSettings
from stages.stage import NotKnownYet
from stages.vision.model_error import ModelError
from stages.vision.weight_files import (
    activation_beside,
    find_weights_file,
    hugging_face_activation,
    open_clip_activation,
)
from storage.files import read_bytes, write_atomic
from storage.fingerprint import digest, file_sha256

if TYPE_CHECKING:
    from stages.vision.towers import Tower

LOCAL_FOLDER_FILES = ("open_clip_config.json", "open_clip_model.safetensors")


@dataclass(frozen=True)
class PlannedWeights:
    """What a plan's fingerprints stand for: no other weights may be loaded for its rows."""

    model: str
    """of `model_weights_id`"""
    guides: Mapping[str, str] = field(default_factory=dict)
    """of `guide_weights_id`, by the guide's name in the job"""


def model_weights_id(model: ModelSettings, cache: str) -> str:
    """Identity of a CLIP model: its name, the hash of its weights, and what decides the activation.

    `cache` remembers hashes of files. Raises FileNotFoundError naming a missing file, NotKnownYet for a public model
    before `resolve_weights`, and ModelError for an activation that a public model contradicts, and for a weights file
    whose `open_clip_config.json` wants images prepared otherwise than CLIP's.
    """
    if model.name.startswith("local-dir:"):
        folder = Path(model.name.removeprefix("local-dir:"))
        return "local:" + digest([file_sha256(str(folder / name), cache=cache) for name in LOCAL_FOLDER_FILES])
    if is_public(model):
        noted = _noted(model, cache)
        _, _, activation = noted.rpartition(":")
        if model.activation not in ("auto", activation):
            raise ModelError(f"model.activation is {model.activation}, but {_public_name(model)} says {activation}")
        return f"{model.name}:{noted}"
    file = find_weights_file(model.weights)
    activation, of_open_clip = model.activation, activation_beside(file)
    if activation == "auto":
        said = {"open_clip_config.json": of_open_clip, "config.json": hugging_face_activation(file)}
        activation = " ".join(f"{config} {one}" for config, one in said.items() if one) or "auto"
    return f"{model.name}:{file_sha256(str(file), cache=cache)}:file:{activation}"


def guide_weights_id(guide: DinoGuide, cache: str) -> str:
    """Identity of a guide's weights: the file's hash. Raises as `model_weights_id` does."""
    return _noted(guide, cache) if is_public(guide) else file_sha256(guide.weights, cache=cache)


def is_public(model: ModelSettings | DinoGuide) -> bool:
    """Whether the weights are somebody's published ones, named and not given as a file."""
    if isinstance(model, DinoGuide):
        return model.weights is None
    return model.name.startswith("hf-hub:") or (model.weights is not None and not is_weights_file(model.weights))


def is_resolved(model: ModelSettings | DinoGuide, cache: str) -> bool:
    """Whether this store knows what the model's name and tag stand for."""
    return not is_public(model) or _public_name(model) in _resolved(cache)


def resolve_weights(model: ModelSettings | DinoGuide, cache: str, run: str) -> None:
    """Note which weights a public name stands for, at its first use in a store. Downloads them; raises ModelError."""
    found = {_public_name(model): _fetched(model, cache)}
    text = json.dumps({**_resolved(cache), **found}, indent=1, sort_keys=True)
    write_atomic(_resolved_path(cache), text.encode(), run)


def check_unchanged(model: ModelSettings | DinoGuide, cache: str, planned: str) -> None:
    """Before loading: the files on this node are those of the identity `planned`.

    Downloads a public model's where they are not in the node's cache. Raises ModelError, and NotKnownYet before
    `resolve_weights`.
    """
    if is_public(model) and _fetched(model, cache) != _noted(model, cache):
        raise ModelError(
            f"{_public_name(model)} was changed where it is published since this store first used it: its files differ "
            f"from what {_resolved_path(cache)} notes. Give the former weights as a local file, or take the name out "
            "of that file: then the new weights are used, in new tables"
        )
    identity = guide_weights_id if isinstance(model, DinoGuide) else model_weights_id
    try:
        found = identity(model, cache)
    except FileNotFoundError as error:
        raise ModelError(f"weights of {_called(model)} on {platform.node()}: {error}") from None
    if found != planned:
        raise ModelError(
            f"the weights of {_called(model)} on {platform.node()} are not those that were planned with: a file was "
            "replaced since, or is another one on this machine. Put the same files on every machine and run again"
        )


def load_model(
    model: ModelSettings, cache: str, planned: str, *, precision: str = "fp32", device: str = "cpu"
) -> Tower:
    """The job's CLIP model, loaded; raises as `check_unchanged` does, and ModelError where it cannot be loaded."""
    from stages.vision.towers import load_tower

    check_unchanged(model, cache, planned)
    return load_tower(model.name, model.weights, activation=model.activation, precision=precision, device=device)


def is_weights_file(weights: str) -> bool:
    """Whether `weights` is a path, not one of open_clip's tags, which have neither separators nor suffixes."""
    return "/" in weights or Path(weights).suffix in {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}


def _fetched(model: ModelSettings | DinoGuide, cache: str) -> str:
    """What a public name stands for on this node: the hash of its files and, of a CLIP model, its activation."""
    if isinstance(model, DinoGuide):
        from stages.vision.dino import fetch_guide_weights

        return file_sha256(str(fetch_guide_weights(model.name)), cache=cache)
    from stages.vision.activation import tag_activation
    from stages.vision.towers import fetch_weights

    files = fetch_weights(model.name, model.weights)
    hashes = [file_sha256(str(file), cache=cache) for file in files]
    if model.weights is None:
        return f"{digest(hashes)}:{open_clip_activation(files[-1])}"
    return f"{hashes[0]}:{tag_activation(model.name, model.weights)}"


def _noted(model: ModelSettings | DinoGuide, cache: str) -> str:
    noted = _resolved(cache).get(_public_name(model))
    if noted is None:
        raise NotKnownYet("the weights are downloaded")
    return noted


def _public_name(model: ModelSettings | DinoGuide) -> str:
    if isinstance(model, DinoGuide):
        return f"timm {model.name}"
    return model.name if model.weights is None else f"{model.name} {model.weights}"


def _called(model: ModelSettings | DinoGuide) -> str:
    return model.name if model.weights is None else f"{model.name} ({model.weights})"


def _resolved_path(cache: str) -> str:
    return os.path.join(os.path.dirname(cache), "models.json")


def _resolved(cache: str) -> Mapping[str, str]:
    try:
        return json.loads(read_bytes(_resolved_path(cache)))
    except FileNotFoundError:
        return {}
