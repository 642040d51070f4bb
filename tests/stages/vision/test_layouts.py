"""Layouts: the same model written in OpenAI's, open_clip's and Hugging Face's way is the same model when read."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stages.vision.layouts import looks_like_openai, read_weights
from stages.vision.model_error import ModelError
from stages.vision.towers import load_tower

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
SMALL = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
RESNET = SMALL | {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}}
ARCHITECTURES = {
    "small": SMALL,
    "small-quickgelu": SMALL | {"quick_gelu": True},
    "small-48": SMALL | {"vision_cfg": VISION | {"image_size": 48}},
    "small-deep": SMALL | {"vision_cfg": VISION | {"layers": 3}},
    "small-custom-text": SMALL | {"custom_text": True},
    "small-resnet": RESNET,
}


@pytest.fixture(autouse=True)
def architectures(tmp_path, monkeypatch):
    """Names of small architectures, known to open_clip for the test's time."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    (tmp_path / "configs").mkdir()
    for name, config in ARCHITECTURES.items():
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    monkeypatch.setattr("stages.vision.names.model_names", lambda: tuple(ARCHITECTURES))


def written(config: dict = SMALL, *, quick_gelu: bool = False) -> open_clip.CLIP:
    """A model whose values are fp16 numbers, so that no layout loses any, and not at their initial values."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**config, quick_gelu=quick_gelu)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter)).copy_(parameter.half().float())
    return model.eval()


def in_openai_layout(model: nn.Module) -> dict[str, torch.Tensor]:
    numbers = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}
    tensors = {key: value.half() if value.ndim > 1 else value for key, value in model.state_dict().items()}
    return tensors | {name: torch.tensor(number) for name, number in numbers.items()}


def in_hugging_face_layout(model: open_clip.CLIP) -> dict[str, torch.Tensor]:
    """Written from the modules, not from a table of keys."""
    out = {
        "logit_scale": model.logit_scale,
        "visual_projection.weight": model.visual.proj.T,
        "text_projection.weight": model.text_projection.T,
        "vision_model.embeddings.class_embedding": model.visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": model.visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": model.visual.positional_embedding,
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
        "text_model.embeddings.token_embedding.weight": model.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": model.positional_embedding,
        "text_model.embeddings.position_ids": torch.arange(16)[None],
    }

    def put(name: str, module: nn.Module) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = module.weight, module.bias

    put("vision_model.pre_layrnorm", model.visual.ln_pre)
    put("vision_model.post_layernorm", model.visual.ln_post)
    put("text_model.final_layer_norm", model.ln_final)
    for tower, transformer in {"vision": model.visual.transformer, "text": model.transformer}.items():
        for number, block in enumerate(transformer.resblocks):
            place = f"{tower}_model.encoder.layers.{number}"
            width = block.ln_1.weight.shape[0]
            for part, letter in enumerate("qkv"):
                rows = slice(part * width, (part + 1) * width)
                out[f"{place}.self_attn.{letter}_proj.weight"] = block.attn.in_proj_weight[rows]
                out[f"{place}.self_attn.{letter}_proj.bias"] = block.attn.in_proj_bias[rows]
            put(f"{place}.self_attn.out_proj", block.attn.out_proj)
            put(f"{place}.layer_norm1", block.ln_1)
            put(f"{place}.layer_norm2", block.ln_2)
            put(f"{place}.mlp.fc1", block.mlp.c_fc)
            put(f"{place}.mlp.fc2", block.mlp.c_proj)
    return {name: tensor.detach().clone().contiguous() for name, tensor in out.items()}


def save_torchscript(model: open_clip.CLIP, path: Path) -> None:
    """As OpenAI published: a traced model with the three numbers among its buffers."""
    model = copy.deepcopy(model)
    for name, number in {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}.items():
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(number))
    example = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, example, check_trace=False).save(path)


def save_in(way: str, model: open_clip.CLIP, folder: Path) -> Path:
    layout, _, kind = way.partition(" ")
    tensors = {"openai": in_openai_layout, "open_clip": nn.Module.state_dict, "hf": in_hugging_face_layout}[layout](
        model
    )
    path = folder / {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}.get(kind, "model.pt")
    if kind == "safetensors":
        save_file(dict(tensors), path)
    elif kind == "torchscript":
        save_torchscript(model, path)
    else:
        torch.save({"state_dict": {f"module.{k}": t for k, t in tensors.items()}} if kind == "ddp" else tensors, path)
    return path


OPENAI_WAYS = ["openai torchscript", "openai pt", "openai safetensors"]
OTHER_WAYS = ["open_clip safetensors", "open_clip pt", "open_clip ddp", "hf safetensors", "hf bin"]


@pytest.mark.parametrize(
    ("way", "activation"),
    [(way, "quick_gelu") for way in [*OPENAI_WAYS, *OTHER_WAYS]] + [(way, "gelu") for way in OTHER_WAYS],
)
def test_every_layout_gives_the_features_of_the_model_that_was_written(way, activation, tmp_path):
    model = written(quick_gelu=activation == "quick_gelu")
    path = save_in(way, model, tmp_path)
    if way.startswith("hf"):
        towers = {name: {"hidden_act": activation} for name in ("text_config", "vision_config")}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"} | towers))
    name = "small-quickgelu" if way.startswith("open_clip") and activation == "quick_gelu" else "small"
    tower = load_tower(name, str(path))
    pixels, texts = torch.randn(3, 3, 32, 32), ["a red beak", "a bird"]
    with torch.no_grad():
        images, captions = model.encode_image(pixels), model.encode_text(tower.tokenizer(texts))
    torch.testing.assert_close(tower.encode_images(pixels), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(tower.encode_texts(texts), captions, rtol=0, atol=1e-5)
    assert tower.logit_scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-3)


def test_a_resnet_of_openai_is_read_with_its_batch_statistics(tmp_path):
    model = written(RESNET, quick_gelu=True).train()
    model.encode_image(torch.randn(4, 3, 64, 64))  # moves the running means
    model.eval()
    tensors = {key: t for key, t in in_openai_layout(model).items() if not key.endswith("num_batches_tracked")}
    torch.save(tensors, tmp_path / "RN.pt")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.encode_image(pixels)
    found = load_tower("small-resnet", str(tmp_path / "RN.pt")).encode_images(pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_architecture_with_a_text_module_of_its_own_reads_the_plain_layout(tmp_path):
    model = written()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    tower = load_tower("small-custom-text", str(tmp_path / "model.safetensors"))
    with torch.no_grad():
        expected = model.encode_text(tower.tokenizer(["a wren"]))
    torch.testing.assert_close(tower.encode_texts(["a wren"]), expected, rtol=0, atol=1e-5)


def without(tensors: dict, *keys: str) -> dict:
    return {key: tensor for key, tensor in tensors.items() if key not in keys}


@pytest.mark.parametrize(
    ("name", "layout", "change", "message"),
    [
        (
            "small-48",
            "open_clip",
            dict,
            r"open_clip layout\) does not belong to this architecture, small-48: of another shape: "
            r"visual.positional_embedding \[17, 32\] instead of \[37, 32\]",
        ),
        ("small-deep", "open_clip", dict, r"missing: visual.transformer.resblocks.2.ln_1.weight, .* and 9 more"),
        ("small", "open_clip", lambda t: t | {"bias": torch.ones(1)}, r"small: unexpected: bias$"),
        ("small", "openai", lambda t: without(t, "visual.proj"), r"OpenAI layout\) .*: missing: visual.proj$"),
        (
            "small",
            "hf",
            lambda t: without(t, "text_model.encoder.layers.1.self_attn.q_proj.bias"),
            r"Hugging Face layout\) .* missing: text_model.encoder.layers.1.self_attn.q_proj.bias$",
        ),
        (
            "small",
            "hf",
            lambda t: t | {"vision_model.head.weight": torch.ones(1)},
            r"unexpected: vision_model.head.weight$",
        ),
        ("small-resnet", "hf", dict, r"small-resnet has parts that CLIP's vision transformers lack \(visual.bn1"),
    ],
)
def test_weights_that_do_not_fit_are_told_by_file_layout_and_keys(name, layout, change, message, tmp_path):
    write = {"openai": in_openai_layout, "open_clip": nn.Module.state_dict, "hf": in_hugging_face_layout}[layout]
    save_file(change(dict(write(written()))), tmp_path / "w.safetensors")
    activation = "gelu" if layout == "hf" else "auto"
    with pytest.raises(ModelError, match=message) as raised:
        load_tower(name, str(tmp_path / "w.safetensors"), activation=activation)
    assert str(tmp_path / "w.safetensors") in str(raised.value)


def test_keys_of_no_known_layout_are_shown(tmp_path):
    save_file({"blocks.0.weight": torch.zeros(1)}, tmp_path / "vit.safetensors")
    with pytest.raises(ModelError, match=r"its keys \(blocks.0.weight\) are neither of OpenAI's"):
        read_weights(tmp_path / "vit.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_damaged_file_is_named(name, tmp_path):
    if name.endswith("pt"):
        torch.save(written().state_dict(), tmp_path / name)
    else:
        save_file(written().state_dict(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=rf"weights file .*{name} is damaged"):
        read_weights(tmp_path / name)


def test_a_file_of_something_else_than_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "run.pt")
    with pytest.raises(ModelError, match="a dict of tensors, or one with such a `state_dict`, is wanted"):
        read_weights(tmp_path / "run.pt")


@pytest.mark.parametrize(
    ("scale", "change", "looks"),
    [
        (math.log(100), dict, True),
        (math.log(1 / 0.07), dict, False),
        (math.log(100), lambda t: t | {"visual.proj": t["visual.proj"] + 1e-6}, False),
        (math.log(100), lambda t: t | {"positional_embedding": t["positional_embedding"] + 1e-6}, True),
        (math.log(100), lambda t: t | {"visual.conv1.weight": torch.zeros(1280, 3, 14, 14)}, False),
    ],
)
def test_openais_values_are_known_by_their_rounding_and_their_scale(scale, change, looks, tmp_path):
    tensors = change(dict(written().state_dict()) | {"logit_scale": torch.tensor(scale)})
    save_file(tensors, tmp_path / "w.safetensors")
    assert looks_like_openai(read_weights(tmp_path / "w.safetensors")) is looks
