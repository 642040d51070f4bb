"""Feature crops against the layers themselves on explicitly resized tokens (algorithms.md 8.3, 12 item 1)."""

from __future__ import annotations

import copy

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.eva import Eva
from timm.models.vision_transformer import ResPostBlock
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from stages.vision.feature_crops import FeatureCropper

WINDOWS = [[0, 0, 4, 4], [0, 0, 1, 1], [1, 2, 3, 4], [0, 1, 4, 2], [3, 0, 4, 4]]


def shaken(model: nn.Module) -> nn.Module:
    """Every parameter away from its initial value, so that biases, norms and layer scales matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * parameter.abs().mean().clamp_min(0.1))
    return model.eval()


def open_clip_tower(**options) -> VisionTransformer:
    return shaken(VisionTransformer(32, 8, width=48, layers=3, heads=4, mlp_ratio=2.0, output_dim=20, **options))


def behind_open_clip(trunk: nn.Module) -> TimmModel:
    visual = TimmModel("test_vit", embed_dim=20, image_size=32, pool="token", proj="linear")
    visual.trunk, visual.head = trunk, nn.Linear(trunk.num_classes, 20)
    return shaken(visual)


class GatedAttention(timm.layers.Attention):
    """As timm's models with gates have it."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, gated=True, **kwargs)


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 24}


def timm_tower(**options) -> TimmModel:
    return behind_open_clip(TimmVisionTransformer(**(SMALL | {"global_pool": "token"} | options)))


def eva_tower(**options) -> TimmModel:
    return behind_open_clip(Eva(**(SMALL | {"global_pool": "token"} | options)))


EVA02 = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True, "use_rot_pos_emb": True}
PE = {"global_pool": "map", "attn_type": "rope", "use_pre_transformer_norm": True, "use_rot_pos_emb": True}

FOLDED = {
    "open_clip": lambda: open_clip_tower(),
    "layer scale": lambda: open_clip_tower(ls_init_value=0.3),
    "no norm before": lambda: open_clip_tower(no_ln_pre=True),
    "QuickGELU": lambda: open_clip_tower(act_layer=QuickGELU),
    "norm after pooling": lambda: open_clip_tower(final_ln_after_pool=True),
    "fixed positions": lambda: open_clip_tower(pos_embed_type="sin_cos_2d"),
    "head scales and inner norms": lambda: open_clip_tower(
        block_type="custom", scale_heads=True, scale_attn_inner=True, scale_attn=True, scale_fc=True
    ),
    "CoCa": lambda: open_clip_tower(attentional_pool=True, attn_pooler_heads=4, attn_pooler_queries=3),
    "timm": lambda: timm_tower(pre_norm=True),
    "timm, layer scale, registers": lambda: timm_tower(init_values=0.3, reg_tokens=2),
    "timm, no bias": lambda: timm_tower(qkv_bias=False, no_embed_class=True, dynamic_img_size=True),
    "timm, inner norms, norm after pooling": lambda: timm_tower(
        scale_attn_norm=True, scale_mlp_norm=True, fc_norm=True
    ),
    "timm, gates": lambda: timm_tower(attn_layer=GatedAttention),
    "timm, norms after": lambda: timm_tower(block_fn=ResPostBlock),
    "EVA01": lambda: eva_tower(init_values=0.4),
    "EVA02-E, norms after": lambda: eva_tower(use_post_norm=True),
    "EVA02": lambda: eva_tower(**EVA02),
    "EVA02, registers": lambda: eva_tower(**EVA02, num_reg_tokens=2),
    "rotary positions, norms after": lambda: eva_tower(use_rot_pos_emb=True, use_post_norm=True),
    "a position table a block": lambda: eva_tower(use_rot_pos_emb=True, rope_type="mixed", attn_type="rope"),
    "rotation by halves": lambda: eva_tower(
        use_rot_pos_emb=True, rope_type="dinov3", attn_type="rope", rope_rotate_half=True
    ),
    "SigLIP": lambda: timm_tower(global_pool="map", class_token=False),
    "SigLIP with CLS outside": lambda: timm_tower(global_pool="map"),
    "PE-Core": lambda: eva_tower(**PE),
    "PE-Core without CLS": lambda: eva_tower(**PE, class_token=False),
}
FULL = {
    "q-k normalisation": lambda: open_clip_tower(block_type="custom", qk_norm=True),
    "timm, q-k normalisation": lambda: timm_tower(qk_norm=True),
    "EVA02, registers, q-k normalisation": lambda: eva_tower(**EVA02, num_reg_tokens=2, qk_norm=True),
    "RMS norms": lambda: timm_tower(norm_layer=timm.layers.RmsNorm),
    "SigLIP, RMS norms": lambda: timm_tower(norm_layer=timm.layers.RmsNorm, global_pool="map", class_token=False),
}


def layers_of(visual: nn.Module) -> list[nn.Module]:
    blocks = visual.transformer.resblocks if isinstance(visual, VisionTransformer) else visual.trunk.blocks
    return list(blocks)


@torch.no_grad()
def entering(visual: nn.Module, pixels: torch.Tensor) -> tuple[list[torch.Tensor], list[dict]]:
    """What enters each block and leaves the last in the tower's own forward pass; and each block's positions."""
    seen, also = [], []

    def look(_, args, kwargs):
        seen.append(args[0])
        also.append(kwargs)

    hooks = [block.register_forward_pre_hook(look, with_kwargs=True) for block in layers_of(visual)]
    hooks.append(layers_of(visual)[-1].register_forward_hook(lambda _, args, out: seen.append(out)))
    visual(pixels)
    for hook in hooks:
        hook.remove()
    return seen, [{name: value for name, value in found.items() if name == "rope"} for found in also]


@torch.no_grad()
def by_full_layers(visual: nn.Module, pixels: torch.Tensor, windows: list, layer: int) -> torch.Tensor:
    """Interpolate the window's tokens, put the prefix before them, run every layer that remains on all of them."""
    seen, also = entering(visual, pixels)
    grid = FeatureCropper(visual).grid
    features = []
    for image, boxes in zip(seen[layer], windows, strict=True):
        prefix, patches = image[: -grid * grid], image[-grid * grid :].T.reshape(1, -1, grid, grid)
        for r0, c0, r1, c1 in boxes:
            cut = patches[:, :, r0:r1, c0:c1]
            enlarged = F.interpolate(cut, size=(grid, grid), mode="bicubic", align_corners=False)[0].flatten(1).T
            tokens = torch.cat([prefix, enlarged])[None]
            for block, kwargs in list(zip(layers_of(visual), also, strict=True))[layer:]:
                tokens = block(tokens, **kwargs)
            if isinstance(visual, VisionTransformer):
                features.append(visual._pool(tokens)[0] @ visual.proj)
            else:
                features.append(visual.head(visual.trunk.forward_head(visual.trunk.norm(tokens))))
    return torch.cat(features).view(len(pixels), -1, features[0].shape[1])


def assert_crops_are_exact(visual: nn.Module, pixels: torch.Tensor, windows: list, layer: int | None = None) -> None:
    cropper = FeatureCropper(visual)
    at = cropper.layers - 1 if layer is None else layer
    crops = cropper.crop_features(cropper.tokens_at(pixels, [at])[at], torch.tensor(windows), layer)
    expected = by_full_layers(visual, pixels, windows, at)
    assert crops.dtype == torch.float32
    assert crops.shape == expected.shape
    torch.testing.assert_close(crops, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("tower", [*FOLDED, *FULL])
def test_feature_crops_equal_the_full_layer(tower):
    visual = (FOLDED | FULL)[tower]()
    assert_crops_are_exact(visual, torch.randn(2, 3, 32, 32), [WINDOWS, WINDOWS[::-1]])


@pytest.mark.parametrize(
    "tower", ["open_clip", "CoCa", "EVA02, registers, q-k normalisation", "a position table a block", "SigLIP"]
)
def test_crops_before_any_layer_equal_the_full_layers(tower):
    visual = (FOLDED | FULL)[tower]()
    for layer in range(FeatureCropper(visual).layers):
        assert_crops_are_exact(visual, torch.randn(1, 3, 32, 32), [WINDOWS], layer)


@pytest.mark.parametrize(
    ("side", "patch", "width", "heads", "dim"),
    [(224, 32, 768, 12, 512), (224, 16, 768, 12, 512), (224, 14, 1024, 16, 768), (336, 14, 1024, 16, 768)],
    ids=["B-32", "B-16", "L-14", "L-14-336"],
)
def test_feature_crops_of_openais_sizes_equal_the_full_block(side, patch, width, heads, dim):
    visual = VisionTransformer(side, patch, width, 2, heads, 4.0, output_dim=dim, act_layer=QuickGELU)
    grid = side // patch
    windows = [[[0, 0, grid, grid], [1, 2, grid // 2, grid - 1]]]
    assert_crops_are_exact(shaken(visual), torch.randn(1, 3, side, side), windows)


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("vit_base_mci_224", 224, {"depth": 2, "global_pool": "token"}),
        ("eva02_base_patch16_clip_224", 224, {"depth": 2, "global_pool": "token"}),
        ("vit_base_patch16_siglip_224", 224, {"depth": 1}),
        ("vit_pe_core_tiny_patch16_384", 384, {"depth": 1}),
    ],
)
def test_feature_crops_of_public_timm_sizes_equal_the_full_layer(name, side, options):
    trunk = timm.create_model(name, num_classes=64, **options)
    visual = behind_open_clip(trunk)
    grid = side // 16
    windows = [[[0, 0, grid, grid], [1, 2, grid // 2, grid - 1]]]
    assert_crops_are_exact(visual, torch.randn(1, 3, side, side), windows)


@pytest.mark.parametrize("tower", [*FOLDED, *FULL])
def test_the_whole_window_and_the_global_feature_are_what_the_tower_gives(tower):
    visual = (FOLDED | FULL)[tower]()
    cropper = FeatureCropper(visual)
    pixels = torch.randn(3, 3, 32, 32)
    tokens = cropper.tokens(pixels)
    with torch.no_grad():
        expected = visual(pixels)
    torch.testing.assert_close(cropper.features(tokens), expected, rtol=1e-5, atol=1e-5)
    whole = cropper.crop_features(tokens, torch.tensor([[[0, 0, 4, 4]]] * 3))
    torch.testing.assert_close(whole[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tower", ["open_clip", "EVA02, registers, q-k normalisation", "timm, no bias"])
def test_one_pass_gives_the_tokens_that_enter_several_layers(tower):
    visual = (FOLDED | FULL)[tower]()
    pixels = torch.randn(2, 3, 32, 32)
    seen, _ = entering(visual, pixels)
    found = FeatureCropper(visual).tokens_at(pixels, [2, 0])
    assert set(found) == {0, 2}
    for layer, tokens in found.items():
        torch.testing.assert_close(tokens, seen[layer], rtol=1e-5, atol=1e-5)


def test_towers_without_key_norms_never_build_the_enlarged_tokens(monkeypatch):
    monkeypatch.setattr("stages.vision.one_row.enlarge", None)
    for tower in FOLDED.values():
        cropper = FeatureCropper(tower())
        tokens = cropper.tokens(torch.randn(1, 3, 32, 32))
        assert cropper.crop_features(tokens, torch.tensor([WINDOWS])).shape == (1, 5, 20)


def test_the_attention_map_is_that_of_the_block():
    visual = open_clip_tower()
    cropper = FeatureCropper(visual)
    tokens = cropper.tokens(torch.randn(2, 3, 32, 32))
    block = visual.transformer.resblocks[-1]
    with torch.no_grad():
        normed = block.ln_1(tokens)
        _, weights = block.attn(normed, normed, normed, need_weights=True, average_attn_weights=True)
    torch.testing.assert_close(cropper.attention(tokens), weights[:, 0, 1:].view(2, 4, 4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "tower", ["timm, layer scale, registers", "EVA02, registers, q-k normalisation", "SigLIP", "EVA01"]
)
def test_the_attention_map_of_timm_towers_is_the_softmax_that_timm_computes(tower, monkeypatch):
    visual = (FOLDED | FULL)[tower]()
    cropper = FeatureCropper(visual)
    pixels = torch.randn(2, 3, 32, 32)
    seen = []

    def slow_attention(q, k, v, **_):
        seen.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1))
        return seen[-1] @ v

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(F, "scaled_dot_product_attention", slow_attention)
        visual(pixels)
    expected = seen[-1][:, :, 0, -16:].mean(dim=1).view(2, 4, 4)
    torch.testing.assert_close(cropper.attention(cropper.tokens(pixels)), expected, rtol=1e-5, atol=1e-6)


def test_images_in_parts_equal_images_together(monkeypatch):
    for tower in ("open_clip", "EVA02", "timm, q-k normalisation"):
        cropper = FeatureCropper((FOLDED | FULL)[tower]())
        tokens = cropper.tokens(torch.randn(3, 3, 32, 32))
        windows = torch.tensor([WINDOWS, WINDOWS[::-1], WINDOWS])
        together = cropper.crop_features(tokens, windows)
        with monkeypatch.context() as patched:
            patched.setattr("stages.vision.feature_crops.WORKING_SET", 1)
            patched.setattr("stages.vision.one_row.ENLARGED", 1)
            torch.testing.assert_close(cropper.crop_features(tokens, windows), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tower", ["open_clip", "EVA02", "SigLIP"])
def test_half_precision_changes_directions_by_less_than_a_thousandth(tower):
    visual = (FOLDED | FULL)[tower]()
    exact = FeatureCropper(copy.deepcopy(visual))
    rough = FeatureCropper(visual, "bf16")
    pixels, windows = torch.randn(2, 3, 32, 32), torch.tensor([WINDOWS, WINDOWS])
    for layer in (0, exact.layers - 1):
        expected = exact.crop_features(exact.tokens_at(pixels, [layer])[layer], windows, layer)
        found = rough.crop_features(rough.tokens_at(pixels, [layer])[layer], windows, layer)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() > 0
        assert torch.cosine_similarity(found, expected, dim=-1).min() > 0.999


def test_an_image_without_windows_has_no_features():
    cropper = FeatureCropper(open_clip_tower())
    tokens = cropper.tokens(torch.randn(2, 3, 32, 32))
    assert cropper.crop_features(tokens, torch.empty(2, 0, 4, dtype=torch.int64)).shape == (2, 0, 20)


def test_a_window_outside_the_grid_is_refused():
    cropper = FeatureCropper(open_clip_tower())
    tokens = cropper.tokens(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="is empty or leaves the 4 x 4 grid"):
        cropper.crop_features(tokens, torch.tensor([[[0, 0, 5, 4]]]))


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_the_tower_does_not_have_is_refused(layer):
    cropper = FeatureCropper(open_clip_tower())
    pixels = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match=f"layer {layer} is not .* before layer 0 to 2"):
        cropper.tokens_at(pixels, [2, layer])
    with pytest.raises(ValueError, match=f"layer {layer} is not .* before layer 0 to 2"):
        cropper.crop_features(cropper.tokens(pixels), torch.tensor([WINDOWS]), layer)


def test_feature_crops_of_a_public_name_equal_the_full_block():
    visual = open_clip.create_model("ViT-M-32").visual.eval()
    assert_crops_are_exact(visual, torch.randn(1, 3, 224, 224), [[[0, 0, 7, 7], [1, 2, 4, 7]]])
