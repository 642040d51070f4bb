"""The layouts that CLIP weights come in, told by their keys and converted to open_clip's.

OpenAI's is open_clip's with three numbers more (its own archives are TorchScript, in half precision). Hugging Face's
splits queries, keys and values, names everything differently and stores the projections transposed.
"""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from open_clip.model import convert_to_custom_text_state_dict
from safetensors.torch import load_file
from torch import nn

from stages.vision.model_error import ModelError

Layout = Literal["OpenAI", "open_clip", "Hugging Face"]
OPENAI_NUMBERS = {"input_resolution", "context_length", "vocab_size"}
OPENAI_WIDEST = 1024  # of its vision transformers, ViT-L; wider ones are others'
TRANSPOSED = ("visual.proj", "text_projection")
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)(weight|bias)")
HUGGING_FACE_BLOCK = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "attn.out_proj.": "self_attn.out_proj.",
}
HUGGING_FACE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # their spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}


@dataclass(frozen=True)
class Weights:
    """What a weights file holds: its layout, and its tensors under the layout's own names."""

    file: Path
    layout: Layout
    tensors: dict[str, torch.Tensor]


def read_weights(file: Path) -> Weights:
    """Read a safetensors file, a torch state dict (also one level down, in `state_dict`) or a TorchScript archive.

    Safetensors and state dicts hold no code (torch's are read with `weights_only`). A TorchScript archive, which is
    what OpenAI published, is a program: torch runs its `__setstate__` when it is opened, as open_clip does as well.
    Raises ModelError for a damaged file, or keys of no known layout.
    """
    try:
        tensors = _read_tensors(file)
    except Exception as error:
        # safetensors, zipfile, pickle and torch each raise types of their own here.
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"weights file {file} is damaged, or holds no weights ({detail})") from error
    return Weights(file, _layout(file, tensors), tensors)


def load_weights(model: nn.Module, weights: Weights, name: str) -> None:
    """Put `weights` into open_clip's `model`, of architecture `name`; every key and shape must be as it wants them.

    Raises ModelError with the file, its layout and a few of the keys that are missing, unexpected or misshapen.
    """
    expected = model.state_dict()
    # Batch norms count their batches in training only, and old files leave that out.
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    if weights.layout == "Hugging Face":
        found, missing, unexpected = _from_hugging_face(weights, expected, name)
    else:
        # TorchScript stores buffers that a state dict leaves out, such as the mask of the text tower.
        derived = {key for key, _ in model.named_buffers()} - expected.keys()
        found = _like_open_clip(weights.tensors, derived, expected)
        missing = [key for key in expected if key not in found and key not in counters]
        unexpected = [key for key in found if key not in expected]
    for key in ("logit_scale", "logit_bias"):  # a number, or a vector of one
        if key in found and key in expected and found[key].numel() == 1:
            found[key] = found[key].reshape(expected[key].shape)
    misshapen = [
        f"{key} {list(tensor.shape)} instead of {list(expected[key].shape)}"
        for key, tensor in found.items()
        if key in expected and tensor.shape != expected[key].shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    told = "; ".join(f"{kind}: {_few(keys)}" for kind, keys in wrong.items() if keys)
    if told:
        what = f"weights file {weights.file} ({weights.layout} layout)"
        raise ModelError(f"{what} does not belong to this architecture, {name}: {told}")
    model.load_state_dict(found, strict=True)


def looks_like_openai(weights: Weights) -> bool:
    """Whether a file in open_clip's layout may hold OpenAI's values: a logit scale of 100, all matrices fp16 numbers.

    True for every copy of OpenAI's own, whatever its dtype, and for some others that were saved in fp16: it is a
    reason to ask, no proof.
    """
    tensors = weights.tensors
    scale, first = tensors.get("logit_scale"), tensors.get("visual.conv1.weight")
    if scale is None or first is None or "token_embedding.weight" not in tensors or first.shape[0] > OPENAI_WIDEST:
        return False
    if abs(float(scale) - math.log(100)) > 1e-3:
        return False
    matrices = (t for key, t in tensors.items() if t.is_floating_point() and t.ndim > 1 and "embedding" not in key)
    return all(torch.equal(matrix, matrix.half().to(matrix.dtype)) for matrix in matrices)


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    if _is_torchscript(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is of yesterday, and so are these archives
            return dict(torch.jit.load(file, map_location="cpu").state_dict())
    state = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError("a dict of tensors, or one with such a `state_dict`, is wanted")
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _layout(file: Path, tensors: Iterable[str]) -> Layout:
    if any(key.startswith(("vision_model.", "text_model.")) for key in tensors):
        return "Hugging Face"
    if any(key in OPENAI_NUMBERS for key in tensors):
        return "OpenAI"
    if any(key.startswith("visual.") for key in tensors):
        return "open_clip"
    raise ModelError(
        f"weights file {file} does not belong to this architecture: its keys ({_few(tensors)}) are neither of "
        "OpenAI's, nor of open_clip's, nor of Hugging Face's CLIP layout"
    )


def _like_open_clip(
    tensors: dict[str, torch.Tensor], derived: set[str], expected: Iterable[str]
) -> dict[str, torch.Tensor]:
    spare = OPENAI_NUMBERS | derived
    kept = {key: t for key, t in tensors.items() if key not in spare and not _is_position_ids(key, expected)}
    if "positional_embedding" in kept and "positional_embedding" not in expected:
        return convert_to_custom_text_state_dict(kept)  # the text tower is a module of its own in this architecture
    return kept


def _from_hugging_face(
    weights: Weights, expected: dict[str, torch.Tensor], name: str
) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """Open_clip's tensors, and the names, as Hugging Face has them, of those that are missing and unexpected."""
    sources = {key: _hugging_face_names(key) for key in expected}
    strangers = [key for key, names in sources.items() if not names]
    if strangers:
        raise ModelError(
            f"weights file {weights.file} (Hugging Face layout) does not belong to this architecture: {name} has parts "
            f"that CLIP's vision transformers lack ({_few(strangers)})"
        )
    wanted = {source for names in sources.values() for source in names}
    found = {}
    for key, names in sources.items():
        if all(source in weights.tensors for source in names):
            parts = [weights.tensors[source] for source in names]
            found[key] = parts[0].T if key in TRANSPOSED else torch.cat(parts) if len(parts) > 1 else parts[0]
    missing = sorted(wanted - weights.tensors.keys())
    return found, missing, [k for k in weights.tensors if k not in wanted and not _is_position_ids(k, expected)]


def _hugging_face_names(key: str) -> tuple[str, ...]:
    """Where Hugging Face keeps what open_clip calls `key`: one name, three of queries, keys and values, or none."""
    if key in HUGGING_FACE:
        return (HUGGING_FACE[key],)
    block = BLOCK.fullmatch(key)
    if block is None:
        return ()
    visual, number, part, kind = block.groups()
    place = f"{'vision' if visual else 'text'}_model.encoder.layers.{number}."
    if part == "attn.in_proj_":
        return tuple(f"{place}self_attn.{letter}_proj.{kind}" for letter in "qkv")
    return (f"{place}{HUGGING_FACE_BLOCK[part]}{kind}",) if part in HUGGING_FACE_BLOCK else ()


def _is_position_ids(key: str, expected: Iterable[str]) -> bool:
    """Numbers 0, 1, 2, ... that older versions of the transformers package stored and newer ones do not."""
    return key.endswith("position_ids") and key not in expected


def _few(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
