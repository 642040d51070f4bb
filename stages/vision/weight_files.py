"""Which file holds a model's weights, and what the configuration beside it says of the activation. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from stages.vision.model_error import ModelError

Trained = Literal["gelu", "quick_gelu"]
FILES_OF_A_FOLDER = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


def find_weights_file(weights: str | Path) -> Path:
    """The file itself, or the first of `FILES_OF_A_FOLDER` in a folder; FileNotFoundError says what is lacking."""
    path = Path(weights)
    if path.is_dir():
        found = [path / name for name in FILES_OF_A_FOLDER if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"folder {path} has none of {', '.join(FILES_OF_A_FOLDER)}")
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    return path


def hugging_face_activation(file: Path) -> Trained | None:
    """What the `config.json` beside a weights file says (`hidden_act` of both towers); None without such a CLIP config.

    A tower that leaves it out has QuickGELU, as in the transformers package. Raises ModelError where the towers
    differ, or for an activation that open_clip's CLIP does not have.
    """
    path = file.with_name("config.json")
    config = _read_json(path) if path.is_file() else {}
    if config.get("model_type") != "clip" and not {"text_config", "vision_config"} <= config.keys():
        return None
    towers = [config.get(name) or {} for name in ("text_config", "vision_config")]
    named = sorted({tower.get("hidden_act", "quick_gelu") for tower in towers})
    if named not in (["gelu"], ["quick_gelu"]):
        raise ModelError(f"{path}: hidden_act is {' and '.join(named)}; gelu or quick_gelu in both towers is supported")
    return named[0]


def open_clip_activation(config: Path) -> Trained:
    """What an `open_clip_config.json` says; GELU where it says nothing. Raises ModelError for a damaged one."""
    model = _read_json(config).get("model_cfg", {})
    return "quick_gelu" if isinstance(model, dict) and model.get("quick_gelu") else "gelu"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:  # errors of JSON and UTF-8 are ValueErrors
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no configuration: it should hold a JSON object")
    return config
