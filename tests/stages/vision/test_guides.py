"""Guides: attention against the whole matrix that the last block of the unchanged model makes for itself."""

from __future__ import annotations

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from stages.vision.crops import image_tensor, normalize, squash
from stages.vision.guides import CenterGuide, ClipGuide, DinoGuide, Guide, UniformGuide, load_guide
from stages.vision.towers import ModelError, load_tower

TIMM_MODELS = [
    ("vit_tiny_patch16_224", 64),  # DINO's own architecture, smaller
    ("vit_small_patch14_dinov2", 56),  # layer scale
    ("vit_small_patch14_reg4_dinov2", 56),  # and four registers
    ("vit_small_patch16_dinov3", 64),  # four registers, rotary positions
    ("eva02_tiny_patch14_224", 56),  # separate query and key projections, rotary positions
]


def saved(name: str, size: int, tmp_path) -> tuple[torch.nn.Module, str]:
    """A timm model with random weights, biases and norms included, and the file where they lie."""
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=size, num_classes=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model, str(path)


@torch.no_grad()
def by_full_block(model, pixels: torch.Tensor) -> torch.Tensor:
    """CLS to patches, mean over heads, of the attention that the last block's own forward pass computes."""
    seen, attn = [], model.blocks[-1].attn
    attn.fused_attn = False  # a fused kernel keeps its matrix to itself
    hook = attn.attn_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.forward_features(pixels)
    hook.remove()
    (matrix,) = seen
    assert matrix.shape[2] == matrix.shape[3]
    torch.testing.assert_close(matrix.sum(dim=-1), torch.ones(matrix.shape[:3]))
    side = model.patch_embed.grid_size[0]
    return matrix[:, :, 0, -side * side :].mean(dim=1).view(len(pixels), side, side)


@pytest.mark.parametrize(("name", "size"), TIMM_MODELS)
@pytest.mark.parametrize("normalization", ["half", "imagenet"])
def test_dino_attention_equals_that_of_the_full_block(name, size, normalization, natural, tmp_path):
    model, path = saved(name, size, tmp_path)
    guide = DinoGuide(name, path, normalization, image_size=size)
    images = [image_tensor(natural(40, 70)), image_tensor(natural(90, 50))]
    mean, std = {
        "half": ((0.5,) * 3, (0.5,) * 3),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }[normalization]
    pixels = normalize(torch.stack([squash(image, size) for image in images]), mean, std)
    saliency = guide.saliency(images)
    assert saliency.shape == (2, 4, 4)
    assert saliency.dtype == torch.float32
    torch.testing.assert_close(saliency, by_full_block(model, pixels), rtol=1e-4, atol=1e-6)
    assert (saliency.sum(dim=(1, 2)) < 1).all()  # the rest is on CLS and registers


def test_clip_guide_sees_the_whole_squashed_image(tiny_clip, natural):
    tower = load_tower(tiny_clip(), None)
    guide = load_guide("clip", tower=tower)
    wide = image_tensor(natural(32, 64))
    saliency = guide.saliency([wide, image_tensor(natural(32, 32))])
    assert saliency.shape == (2, 4, 4)
    assert (saliency > 0).all()
    pixels = normalize(squash(wide, 32, interpolation="bicubic")[None], tower.mean, tower.std)
    tokens = tower.cropper.tokens(pixels)
    torch.testing.assert_close(saliency[:1], tower.cropper.attention(tokens))
    painted = wide.clone()
    painted[:, :, :8] = 255  # the end that a centre crop would throw away
    assert not torch.allclose(guide.saliency([painted]), saliency[:1])


class LedByText:
    """A guide as text-guided ones will be: attention to the patches whose pixels are most like a text's vector."""

    def saliency(self, images, texts=None):
        patches = torch.stack([squash(image, 2) for image in images]).flatten(2)
        likeness = torch.einsum("bcp,mc->bmp", patches, texts).amax(dim=1)
        return likeness.softmax(dim=-1).view(-1, 2, 2)


def test_a_guide_may_be_led_by_descriptors_and_the_others_ignore_them(tiny_clip, natural, tmp_path):
    reddish = torch.zeros(3, 8, 8, dtype=torch.uint8)
    reddish[0, :4, 4:] = 255
    red, blue = torch.eye(3)[:1], torch.eye(3)[2:]
    led: Guide = LedByText()
    assert led.saliency([reddish], texts=red).flatten().argmax() == 1
    assert led.saliency([reddish], texts=blue).unique().tolist() == [0.25]
    _, path = saved("vit_tiny_patch16_224", 64, tmp_path)
    tower = load_tower(tiny_clip(), None)
    dino = DinoGuide("vit_tiny_patch16_224", path, image_size=64)
    for guide in (UniformGuide(), CenterGuide(), ClipGuide(tower), dino):
        image = image_tensor(natural(32, 32))
        assert torch.equal(guide.saliency([image], texts=red), guide.saliency([image]))


def test_uniform_and_center_guides():
    images = [torch.zeros(3, 5, 9, dtype=torch.uint8)] * 2
    even = load_guide("random", tower=None).saliency(images)
    assert even.shape == (2, 14, 14)
    assert even.unique().tolist() == pytest.approx([1 / 196])
    middle = load_guide("center", tower=None).saliency(images)
    assert middle.sum(dim=(1, 2)).tolist() == pytest.approx([1, 1])
    assert np.unravel_index(int(middle[0].argmax()), (14, 14)) == (6, 6)
    torch.testing.assert_close(middle, middle.flip(1, 2))
    assert isinstance(load_guide("random", tower=None), UniformGuide)
    assert isinstance(load_guide("center", tower=None), CenterGuide)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "dino", "name": "vit_bse_patch16_224"},
            "unknown timm model .* did you mean .*vit_base_patch16_224",
        ),
        (
            {"kind": "dino", "weights": "/nowhere/dino.safetensors"},
            "/nowhere/dino.safetensors .* does not exist",
        ),
        ({"kind": "dino", "normalization": "none"}, "must be 'half' or 'imagenet'"),
        ({"kind": "clip"}, "none was given"),
        ({"kind": "sam"}, "must be clip, dino, random or center"),
    ],
)
def test_guides_that_cannot_be_loaded_say_what_would_do(options, message):
    with pytest.raises(ModelError, match=message):
        load_guide(tower=None, **options)


def test_a_damaged_weights_file_is_named(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"weights file .*bad.safetensors is damaged or does not belong"):
        DinoGuide("vit_tiny_patch16_224", tmp_path / "bad.safetensors")


def test_an_offline_download_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"could not be downloaded\. Without a network"):
        load_guide("dino", tower=None)


def test_models_without_cls_attention_cannot_guide(tiny_clip, tmp_path):
    model = timm.create_model("resnet10t", num_classes=0)
    save_file(model.state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(ModelError, match="has no CLS token"):
        DinoGuide("resnet10t", tmp_path / "resnet.safetensors")
    with pytest.raises(ModelError, match="has no CLS attention to read"):
        ClipGuide(load_tower(tiny_clip(pool_type="avg"), None))


@pytest.mark.parametrize(
    ("name", "size"), [("vit_tiny_patch16_224", 64), ("vit_small_patch16_dinov3", 64), ("eva02_tiny_patch14_224", 56)]
)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_guide_in_half_precision_looks_at_the_same_places(name, size, precision, natural, tmp_path):
    _, path = saved(name, size, tmp_path)
    exact, rough = (
        DinoGuide(name, path, image_size=size, precision=p).saliency([image_tensor(natural(64, 64))])
        for p in ("fp32", precision)
    )
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact.flatten(1), rough.flatten(1)).min() > 0.999
