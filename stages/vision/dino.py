"""A timm ViT whose last block answers one question: which patches does CLS look at?

The last block is replaced by a probe that computes the attention of the CLS row from queries and keys
alone, with the query and key norms and rotary positions of the models that have them (DINO, DINOv2, DINOv3,
DeiT, EVA), and the final norm by nothing.
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.layers.attention import Attention
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import nn

from stages.vision.downloads import download_guide
from stages.vision.low_precision import DTYPES, Precision, lower
from stages.vision.model_error import ModelError
from stages.vision.names import suggest


def load_probe(
    name: str, weights: str | Path | None, image_size: int | None, precision: Precision = "fp32"
) -> nn.Module:
    """A timm ViT whose `forward_features` maps normalised pixels `[B, 3, S, S]` to CLS-to-patch attention `[B, G, G]`.

    The attention is the mean over heads; with that to CLS and register tokens it sums to 1.

    `weights`: a local file (safetensors, or a torch state dict without code), or None for the one that timm
    publishes, downloaded once a node. `precision` is that of all blocks but the last, and of the pixels wanted.
    Raises ModelError.
    """
    check_guide_name(name)
    if weights is not None and not Path(weights).is_file():
        raise ModelError(f"weights file {weights} for guide {name!r} does not exist")
    file = fetch_guide_weights(name) if weights is None else weights
    overlay = {"file": str(file), "custom_load": False}
    size = {} if image_size is None else {"img_size": image_size}
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **size)
    except Exception as error:
        # A wrong file and a wrong option each raise types of other packages here.
        detail = _detail(error)
        raise ModelError(
            f"guide {name!r}: weights file {file} is damaged or does not belong to this model ({detail})"
        ) from error
    reason = _why_no_attention(model)
    if reason:
        raise ModelError(f"timm model {name!r} cannot guide: {reason}")
    model.blocks[-1] = _ClsAttention(model.blocks[-1].norm1, model.blocks[-1].attn, model.num_prefix_tokens)
    model.norm = nn.Unflatten(1, model.patch_embed.grid_size)
    lower(model, DTYPES[precision], keep=[model.blocks[-1]])
    return model.eval()


def fetch_guide_weights(name: str) -> Path:
    """The weights file that timm publishes for a model, downloaded once a node. Raises ModelError."""
    check_guide_name(name)
    try:
        return download_guide(name)
    except Exception as error:  # of huggingface_hub, its HTTP client, the file system
        raise ModelError(
            f"guide {name!r}: its weights could not be downloaded. Without a network, give weights as the path of a "
            f"local file ({_detail(error)})"
        ) from error


def check_guide_name(name: str) -> None:
    """Raise ModelError, with similar names, for one that timm does not know."""
    known = [*timm.list_models(), *timm.list_models(pretrained=True)]
    if name not in known:
        raise ModelError(f"unknown timm model {name!r} for a dino guide; {suggest(name, known)}")


class _ClsAttention(nn.Module):
    """Stands in for a block: tokens `[B, R + P, D]` -> attention of CLS to the P patches `[B, P]`, mean over heads.

    R prefix tokens (CLS, then registers or a distillation token) take part in the softmax and are left out
    of the result.
    """

    def __init__(self, norm: nn.Module, attn: nn.Module, prefix: int) -> None:
        super().__init__()
        self.norm, self.attn, self.prefix = norm, attn, prefix

    def forward(self, tokens: torch.Tensor, rope: torch.Tensor | None = None, **unmasked: object) -> torch.Tensor:
        tokens = self.norm(tokens.float())
        query, key = self._queries_and_keys(tokens)
        query, key = self.attn.q_norm(query), self.attn.k_norm(key)
        if rope is not None:  # positions are those of patches; the CLS query has none
            half = getattr(self.attn, "rotate_half", False)
            patches = apply_rot_embed_cat(key[:, :, self.prefix :], rope, half=half).type_as(key)
            key = torch.cat([key[:, :, : self.prefix], patches], dim=2)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)  # heads may share keys
        scores = (query * self.attn.scale) @ key.mT
        return scores.softmax(dim=-1)[:, :, 0, self.prefix :].mean(dim=1)

    def _queries_and_keys(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, h, 1, D / h]` of CLS and `[B, h, R + P, D / h]` of all, before norms."""
        attn, cls = self.attn, tokens[:, :1]
        if getattr(attn, "qkv", None) is None:
            query, key = attn.q_proj(cls), attn.k_proj(tokens)
        else:
            query_weight, key_weight, _ = attn.qkv.weight.chunk(3)
            query_bias, key_bias = getattr(attn, "q_bias", None), getattr(attn, "k_bias", None)
            if attn.qkv.bias is not None:
                query_bias, key_bias, _ = attn.qkv.bias.chunk(3)
            query, key = F.linear(cls, query_weight, query_bias), F.linear(tokens, key_weight, key_bias)
        return tuple(part.unflatten(-1, (-1, attn.head_dim)).transpose(1, 2) for part in (query, key))


def _why_no_attention(model: nn.Module) -> str | None:
    if getattr(model, "cls_token", None) is None or not hasattr(model, "blocks"):
        return "it has no CLS token, whose attention would be the guide"
    last = model.blocks[-1]
    if type(last) not in (Block, EvaBlock) or type(last.attn) not in (Attention, EvaAttention, AttentionRope):
        return f"its last block is a {type(last).__name__} with {type(getattr(last, 'attn', last)).__name__}"
    rows, columns = model.patch_embed.grid_size
    return None if rows == columns else f"its token grid is {rows} x {columns}, not square"


def _detail(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
