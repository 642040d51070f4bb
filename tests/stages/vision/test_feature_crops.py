"""The folded last block against the block itself on explicitly resized tokens (algorithms.md 8.3, 12 item 1)."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import nn

from stages.vision.feature_crops import LastBlock, why_no_feature_crops

WINDOWS = [[0, 0, 4, 4], [0, 0, 1, 1], [1, 2, 3, 4], [0, 1, 4, 2], [3, 0, 4, 4]]


def shaken(model: nn.Module) -> nn.Module:
    """Every parameter away from its initial value, so that biases, norms and layer scales matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * parameter.abs().mean().clamp_min(0.1))
    return model.eval()


def small_tower(**options) -> VisionTransformer:
    return shaken(VisionTransformer(32, 8, width=48, layers=3, heads=4, mlp_ratio=2.0, output_dim=20, **options))


@torch.no_grad()
def by_full_block(visual: VisionTransformer, tokens: torch.Tensor, windows: list) -> torch.Tensor:
    grid = visual.grid_size[0]
    features = []
    for image, boxes in zip(tokens, windows, strict=True):
        patches = image[1:].T.reshape(1, -1, grid, grid)
        for r0, c0, r1, c1 in boxes:
            cut = patches[:, :, r0:r1, c0:c1]
            enlarged = F.interpolate(cut, size=(grid, grid), mode="bicubic", align_corners=False)[0].flatten(1).T
            block = visual.transformer.resblocks[-1]
            out = block(torch.cat([image[:1], enlarged])[None])[:, 0]
            features.append(visual.ln_post(out) @ visual.proj)
    return torch.cat(features).view(len(tokens), -1, features[0].shape[1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ls_init_value": 0.3},
        {"no_ln_pre": True},
        {"act_layer": open_clip.transformer.QuickGELU},
        {"final_ln_after_pool": True},
        {"pos_embed_type": "sin_cos_2d"},
    ],
)
def test_feature_crops_equal_the_full_block(options):
    visual = small_tower(**options)
    last = LastBlock(visual)
    tokens = last.tokens(torch.randn(2, 3, 32, 32))
    windows = [WINDOWS, WINDOWS[::-1]]
    crops = last.crop_features(tokens, torch.tensor(windows))
    expected = by_full_block(visual, tokens, windows)
    assert crops.dtype == torch.float32
    assert crops.shape == (2, 5, 20)
    torch.testing.assert_close(crops, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_feature_crops_of_vit_b_32_equal_the_full_block():
    visual = open_clip.create_model("ViT-B-32").visual.eval()
    last = LastBlock(visual)
    tokens = last.tokens(torch.randn(1, 3, 224, 224))
    windows = [[[0, 0, 7, 7], [1, 2, 4, 7]]]
    torch.testing.assert_close(
        last.crop_features(tokens, torch.tensor(windows)),
        by_full_block(visual, tokens, windows),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_whole_window_and_the_global_feature_are_what_the_tower_gives():
    visual = small_tower(ls_init_value=0.3)
    last = LastBlock(visual)
    pixels = torch.randn(3, 3, 32, 32)
    tokens = last.tokens(pixels)
    with torch.no_grad():
        expected = visual(pixels)
    torch.testing.assert_close(last.features(tokens), expected, rtol=1e-5, atol=1e-5)
    whole = last.crop_features(tokens, torch.tensor([[[0, 0, 4, 4]]] * 3))
    torch.testing.assert_close(whole[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_the_attention_map_is_that_of_the_block():
    visual = small_tower()
    last = LastBlock(visual)
    tokens = last.tokens(torch.randn(2, 3, 32, 32))
    block = visual.transformer.resblocks[-1]
    with torch.no_grad():
        normed = block.ln_1(tokens)
        _, weights = block.attn(normed, normed, normed, need_weights=True, average_attn_weights=True)
    torch.testing.assert_close(last.attention(tokens), weights[:, 0, 1:].view(2, 4, 4), rtol=1e-5, atol=1e-6)


def test_images_in_parts_equal_images_together(monkeypatch):
    last = LastBlock(small_tower())
    tokens = last.tokens(torch.randn(3, 3, 32, 32))
    windows = torch.tensor([WINDOWS] * 3)
    together = last.crop_features(tokens, windows)
    monkeypatch.setattr("stages.vision.feature_crops.WORKING_SET", 1)
    torch.testing.assert_close(last.crop_features(tokens, windows), together, rtol=1e-5, atol=1e-6)


def test_read_only_windows_are_taken():
    last = LastBlock(small_tower())
    tokens = last.tokens(torch.randn(1, 3, 32, 32))
    windows = torch.tensor([WINDOWS], dtype=torch.int32).numpy()
    windows.flags.writeable = False
    assert last.crop_features(tokens, windows).shape == (1, 5, 20)


@pytest.mark.parametrize("window", [[0, 0, 5, 4], [-1, 0, 2, 2], [2, 2, 2, 3]])
def test_a_window_outside_the_grid_is_refused(window):
    last = LastBlock(small_tower())
    tokens = last.tokens(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="is empty or leaves the 4 x 4 grid"):
        last.crop_features(tokens, torch.tensor([[window]]))


@pytest.mark.parametrize(
    ("visual", "reason"),
    [
        (nn.Linear(2, 2), "is a Linear"),
        (small_tower(pool_type="avg"), "pools its tokens"),
        (small_tower(attentional_pool=True, attn_pooler_heads=4), "pools its tokens"),
        (small_tower(block_type="custom", qk_norm=True), "q-k normalisation"),
    ],
)
def test_towers_without_a_plain_cls_block_are_refused_with_the_reason(visual, reason):
    assert reason in why_no_feature_crops(visual)
    with pytest.raises(ValueError, match="this model has no feature crops: .*" + reason):
        LastBlock(visual)
