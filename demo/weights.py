"""The small CLIP of this world: its shape, and how it is kept on disk, in open_clip's own folder format.

`open_clip.create_model_and_transforms("local-dir:<folder>")` loads what `save_model` writes.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import open_clip
import torch
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save

CONFIG = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "patch_size": 8, "layers": 6, "width": 128, "head_width": 32},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def new_model() -> torch.nn.Module:
    """The model before training, with weights from torch's current random state."""
    return open_clip.model.CLIP(**CONFIG["model_cfg"])


def tokenize(sentences: list[str]) -> torch.Tensor:
    """Token ids `[n, 32]` by open_clip's own tokenizer."""
    return _tokenizer()(sentences)


@cache
def _tokenizer() -> open_clip.tokenizer.SimpleTokenizer:
    length = CONFIG["model_cfg"]["text_cfg"]["context_length"]
    return open_clip.tokenizer.SimpleTokenizer(context_length=length)


def narrow_tokens(model: torch.nn.Module, used: torch.Tensor) -> None:
    """Keep only the rows `used` `[T]` (ascending ids) of the token table, so that no other is trained."""
    table = torch.nn.Embedding(len(used), model.token_embedding.embedding_dim)
    table.weight.data.copy_(model.token_embedding.weight.data[used])
    model.token_embedding = table


def save_model(model: torch.nn.Module, used: torch.Tensor, folder: Path) -> None:
    """Write a model with a narrowed token table: configuration, and weights in half precision with the full
    table, rows of unused tokens zero. Each file appears whole or not at all."""
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    rows = state["token_embedding.weight"]
    table = torch.zeros(CONFIG["model_cfg"]["text_cfg"]["vocab_size"], rows.shape[1], dtype=rows.dtype)
    table[used] = rows
    state["token_embedding.weight"] = table
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        (HF_CONFIG_NAME, (json.dumps(CONFIG, indent=2) + "\n").encode()),
        (HF_SAFE_WEIGHTS_NAME, save(state)),
    ):
        partial = folder / f".{name}.part"
        partial.write_bytes(content)
        os.replace(partial, folder / name)
