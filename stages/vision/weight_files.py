"""Which file holds a model's weights, and what the configurations beside it say of them. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from stages.vision.model_error import ModelError
from stages.vision.names import CONFIG

Trained = Literal["gelu", "quick_gelu"]
FILES_OF_A_FOLDER = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
CLIPS_WAY = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "resize_mode": "shortest",
    "interpolation": "bicubic",
}
"""How OpenAI's CLIP wants its images, and open_clip where nothing else is said."""


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
    config = read_config(path) if path.is_file() else {}
    if config.get("model_type") != "clip" and not {"text_config", "vision_config"} <= config.keys():
        return None
    towers = [config.get(name) or {} for name in ("text_config", "vision_config")]
    named = sorted({tower.get("hidden_act", "quick_gelu") for tower in towers})
    if named not in (["gelu"], ["quick_gelu"]):
        raise ModelError(f"{path}: hidden_act is {' and '.join(named)}; gelu or quick_gelu in both towers is supported")
    return named[0]


def open_clip_activation(config: Path) -> Trained:
    """What an `open_clip_config.json` says; GELU where it says nothing. Raises ModelError for a damaged one."""
    model = read_config(config).get("model_cfg", {})
    return "quick_gelu" if isinstance(model, dict) and model.get("quick_gelu") else "gelu"


def activation_beside(file: Path) -> Trained | None:
    """What an `open_clip_config.json` beside a weights file says of the activation; None without one.

    Raises ModelError where it wants images prepared otherwise than CLIP's, which is how those of a file are.
    """
    path = file.with_name(CONFIG)
    if not path.is_file():
        return None
    wanted = read_config(path).get("preprocess_cfg") or {}
    if other := unlike_clip(wanted):
        raise ModelError(
            f"weights file {file}: {path} wants images prepared otherwise than CLIP's, which a file's are "
            f"({other}). Leave weights out and give the folder itself, as model.name 'local-dir:{file.parent}'"
        )
    return open_clip_activation(path)


def unlike_clip(preprocessing: Mapping[str, Any]) -> str:
    """In words, what of open_clip's preprocessing settings differs from CLIP's; "" where nothing does."""
    return ", ".join(
        f"{key} {preprocessing[key]}"
        for key, clips in CLIPS_WAY.items()
        if key in preprocessing and not _equal(preprocessing[key], clips)
    )


def _equal(found: Any, expected: str | tuple[float, ...]) -> bool:
    if isinstance(expected, str):
        return found == expected
    if not isinstance(found, (list, tuple)) or len(found) != len(expected):
        return False
    pairs = zip(found, expected, strict=True)
    return all(isinstance(one, (int, float)) and math.isclose(one, other, abs_tol=1e-3) for one, other in pairs)


def read_config(path: Path) -> dict[str, Any]:
    """A model's configuration, a JSON object. Raises ModelError for a file that is none."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:  # errors of JSON and UTF-8 are ValueErrors
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no configuration: it should hold a JSON object")
    return config
