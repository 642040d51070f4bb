"""Real architectures with random weights on disk: as fast as the trained ones, and nothing to download."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import timm
import torch
from safetensors.torch import save_file

DINO = "vit_base_patch16_224.dino"


def write_clip(folder: Path, name: str) -> Path:
    """A folder for `local-dir:` with open_clip's architecture `name`."""
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_dino(folder: Path) -> Path:
    """A weights file of the guide that ABS uses."""
    torch.manual_seed(0)
    path = folder / "dino.safetensors"
    save_file(timm.create_model(DINO, pretrained=False, num_classes=0).state_dict(), path)
    return path
