"""Which image towers have tokens that can be cropped, and what the others say."""

from __future__ import annotations

import open_clip
import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from stages.vision.feature_crops import FeatureCropper, why_no_feature_crops


def built(name: str) -> nn.Module:
    """open_clip's image tower of that name, without storage for its weights."""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        return open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"])


def small(**options) -> VisionTransformer:
    return VisionTransformer(32, 8, width=48, layers=2, heads=4, mlp_ratio=2.0, output_dim=20, **options)


def behind_timm(**options) -> TimmModel:
    visual = TimmModel("test_vit", embed_dim=20, image_size=32, pool="token", proj="linear")
    defaults = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "num_classes": 20}
    visual.trunk = timm.models.Eva(**(defaults | options))
    return visual


@pytest.mark.parametrize(
    ("name", "layers", "grid"),
    [
        ("ViT-B-32", 12, 7),
        ("ViT-L-14-336-quickgelu", 24, 24),
        ("coca_base", 12, 16),
        ("coca_ViT-B-32", 13, 7),
        ("EVA01-g-14", 40, 16),
        ("EVA02-B-16", 12, 14),
        ("MobileCLIP-B", 12, 14),
        ("MobileCLIP2-L-14", 24, 16),
        ("ViT-B-16-SigLIP", 13, 14),
        ("ViT-B-32-SigLIP2-256", 13, 8),
        ("PE-Core-T-16-384", 13, 24),
    ],
)
def test_towers_with_a_cls_token_or_attention_pooling_have_feature_crops(name, layers, grid):
    visual = built(name)
    assert why_no_feature_crops(visual) is None
    cropper = FeatureCropper(visual)
    assert (cropper.layers, cropper.grid) == (layers, grid)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50", "its image tower is a ModifiedResNet, which has no tokens"),
        ("convnext_tiny", "its image tower is timm's ConvNeXt"),
        ("MobileCLIP-S1", "its image tower is timm's FastVit"),
        ("swin_base_patch4_window7_224", "its image tower is timm's SwinTransformer"),
        ("vit_relpos_medium_patch16_cls_224", "its image tower is timm's VisionTransformerRelPos"),
        ("ViT-L-14-CLIPA", "averages its tokens"),
        ("vit_medium_patch16_gap_256", "averages its tokens"),
        ("ViTamin-S", "averages its tokens"),
    ],
)
def test_towers_of_another_kind_are_refused_with_the_reason(name, reason):
    visual = built(name)
    assert reason in why_no_feature_crops(visual)
    with pytest.raises(ValueError, match="this model has no feature crops: .*" + reason + ".*; use raw crops with it"):
        FeatureCropper(visual)


@pytest.mark.parametrize(
    ("visual", "reason"),
    [
        (nn.Linear(2, 2), "is a Linear, which has no tokens"),
        (small(pool_type="avg"), "averages its tokens"),
        (small(attentional_pool="cascade", attn_pooler_heads=4), "pools its tokens twice"),
        (small(block_type="custom", scaled_cosine_attn=True), "attend by scaled cosines"),
        (VisionTransformer((32, 64), 8, 48, 2, 4, 2.0), "grid is 4 x 8, not square"),
        (behind_timm(img_size=(32, 64), global_pool="token"), "grid is 4 x 8, not square"),
        (behind_timm(global_pool="avg"), "averages its tokens"),
        (behind_timm(global_pool="token", attn_type="rope", qkv_fused=False, num_kv_heads=2), "heads share keys"),
    ],
)
def test_towers_whose_row_is_not_clear_are_refused_with_the_reason(visual, reason):
    assert reason in why_no_feature_crops(visual)


def test_an_unknown_block_is_refused_by_its_name():
    visual = behind_timm(global_pool="token")
    visual.trunk.blocks[-1] = nn.Linear(48, 48)
    assert "its last block is a Linear" in why_no_feature_crops(visual)
