"""The last attention of an image tower, of which one query row is read: a block seen from CLS, or a pooling head.

Four kinds, for the libraries' own modules, with one face: the query (from CLS, or the pooling head's own), the
projections of keys and values, and what follows the attention for that row. They read the tower's parameters when
asked and hold none. Letters as in algorithms.md: K rows (an image or a crop each), T tokens, D width, h heads.
"""

from __future__ import annotations

from typing import Protocol

import timm.layers
import torch
import torch.nn.functional as F
from open_clip.transformer import Attention, AttentionalPooler, CustomResidualAttentionBlock, ResidualAttentionBlock
from timm.layers import AttentionPoolLatent, AttentionRope
from timm.models.eva import EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn

Projection = tuple[torch.Tensor, torch.Tensor | None]  # weight [h * v, D] and bias


class LastAttention(Protocol):
    """What the arithmetic of feature crops needs to know of the last attention."""

    heads: int
    norm: nn.Module | None  # stands between tokens and keys, values; None where the block normalises afterwards
    key_norm: nn.Module | None  # over each head's keys

    def query(self, cls: torch.Tensor) -> torch.Tensor:
        """The query of each head, ready for keys (normalised, over the root of its width), `[K, h, v]`."""

    def projections(self) -> tuple[Projection, Projection]:
        """Of keys and of values."""

    def close(self, cls: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        """The row's output `[K, D]` from its input `cls [K, D]` and what each head heard, `[K, h, v]`."""


class OpenClipBlock:
    """A block of open_clip's VisionTransformer, plain or custom, seen from CLS."""

    def __init__(self, block: ResidualAttentionBlock | CustomResidualAttentionBlock) -> None:
        self.block, self.attn = block, block.attn
        self.heads: int = block.attn.num_heads
        self.norm = block.ln_1
        self.key_norm = _unless_identity(block.attn, "ln_k")

    def query(self, cls: torch.Tensor) -> torch.Tensor:
        return _heads_of(self.norm(cls), _packed(self.attn)[0], self.heads, _part(self.attn, "ln_q"))

    def projections(self) -> tuple[Projection, Projection]:
        return _packed(self.attn)[1:]

    def close(self, cls: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        block, attn = self.block, self.attn
        if getattr(attn, "head_scale", None) is not None:
            heard = heard * attn.head_scale[:, :, 0]
        out = attn.out_proj(_part(attn, "ln_inner")(heard.flatten(1)))
        cls = cls + block.ls_1(_part(block, "ln_attn")(out))
        return cls + block.ls_2(block.mlp(block.ln_2(cls)))


class TimmBlock:
    """A block of timm's VisionTransformer or Eva, normalising before or after its halves, seen from CLS."""

    def __init__(self, block: Block | ResPostBlock | EvaBlock | EvaBlockPostNorm) -> None:
        self.block, self.attn = block, block.attn
        self.heads: int = block.attn.num_heads
        self.normalises_after = isinstance(block, (ResPostBlock, EvaBlockPostNorm))
        self.norm = None if self.normalises_after else block.norm1
        self.key_norm = _unless_identity(block.attn, "k_norm")

    def query(self, cls: torch.Tensor) -> torch.Tensor:
        return _heads_of(self._normed(cls), _timm_projections(self.attn)[0], self.heads, self.attn.q_norm)

    def projections(self) -> tuple[Projection, Projection]:
        return _timm_projections(self.attn)[1:]

    def close(self, cls: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        block, attn = self.block, self.attn
        out = attn.norm(heard.flatten(1))
        if attn.gate is not None:
            out = out * attn.gate(self._normed(cls)).sigmoid()
        out = attn.proj(out)
        if self.normalises_after:
            cls = cls + block.norm1(out)
            return cls + block.norm2(block.mlp(cls))
        cls = cls + _layer_scaled(block, 1, out)
        return cls + _layer_scaled(block, 2, block.mlp(block.norm2(cls)))

    def _normed(self, cls: torch.Tensor) -> torch.Tensor:
        return cls if self.norm is None else self.norm(cls)


class LatentPool:
    """timm's attention pooling (SigLIP, Perception Encoder): a learned query reads the normed tokens."""

    def __init__(self, pool: AttentionPoolLatent, norm: nn.Module) -> None:
        self.pool = pool
        self.heads: int = pool.num_heads
        self.norm = None if isinstance(norm, nn.Identity) else norm
        self.key_norm = _unless_identity(pool, "k_norm")

    def query(self, cls: torch.Tensor) -> torch.Tensor:
        found = self.pool.q(self.pool.latent[0]).view(1, self.heads, -1)
        return (self.pool.q_norm(found) * found.shape[-1] ** -0.5).expand(len(cls), -1, -1)

    def projections(self) -> tuple[Projection, Projection]:
        return tuple(_split(self.pool.kv, parts=2))

    def close(self, cls: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        out = self.pool.proj(heard.flatten(1))
        return out if self.pool.mlp is None else out + self.pool.mlp(self.pool.norm(out))


class CocaPool:
    """open_clip's attention pooling as CoCa has it: the first of its learned queries gives the image's feature."""

    def __init__(self, pool: AttentionalPooler) -> None:
        self.pool = pool
        self.heads: int = pool.attn.num_heads
        self.norm = pool.ln_k
        self.key_norm = None

    def query(self, cls: torch.Tensor) -> torch.Tensor:
        first = self.pool.ln_q(self.pool.query[:1])
        return _heads_of(first, _packed(self.pool.attn)[0], self.heads, nn.Identity()).expand(len(cls), -1, -1)

    def projections(self) -> tuple[Projection, Projection]:
        return _packed(self.pool.attn)[1:]

    def close(self, cls: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        return self.pool.attn.out_proj(heard.flatten(1))


def block_reader(block: nn.Module) -> LastAttention | str:
    """The block seen from CLS, or the reason why its row cannot be computed alone."""
    attn = getattr(block, "attn", None)
    if isinstance(block, (ResidualAttentionBlock, CustomResidualAttentionBlock)):
        if isinstance(attn, Attention) and attn.scaled_cosine:
            return "its blocks attend by scaled cosines"
        return OpenClipBlock(block)
    if type(block) in (Block, ResPostBlock, EvaBlock, EvaBlockPostNorm):
        if isinstance(attn, AttentionRope) and attn.num_kv_groups > 1:
            return "its heads share keys and values"
        if isinstance(attn, (timm.layers.Attention, AttentionRope, EvaAttention)):
            return TimmBlock(block)
    return f"its last block is a {type(block).__name__} with {type(attn).__name__}, whose CLS row is not known"


def _heads_of(normed: torch.Tensor, projection: Projection, heads: int, norm: nn.Module) -> torch.Tensor:
    query = F.linear(normed, *projection).unflatten(-1, (heads, -1))
    return norm(query) * query.shape[-1] ** -0.5


def _packed(attn: nn.MultiheadAttention | Attention) -> tuple[Projection, Projection, Projection]:
    """Query, key and value projections of torch's and open_clip's attention."""
    if attn.in_proj_weight is None:
        weights = (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)
    else:
        weights = attn.in_proj_weight.chunk(3)
    biases = (None,) * 3 if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
    return tuple(zip(weights, biases, strict=True))


def _timm_projections(attn: nn.Module) -> tuple[Projection, Projection, Projection]:
    """Query, key and value projections of timm's attentions, one matrix or three."""
    if attn.qkv is None:
        return tuple((part.weight, part.bias) for part in (attn.q_proj, attn.k_proj, attn.v_proj))
    if getattr(attn, "q_bias", None) is not None:
        return tuple(zip(attn.qkv.weight.chunk(3), (attn.q_bias, attn.k_bias, attn.v_bias), strict=True))
    return tuple(_split(attn.qkv, parts=3))


def _split(linear: nn.Linear, parts: int) -> list[Projection]:
    biases = (None,) * parts if linear.bias is None else linear.bias.chunk(parts)
    return list(zip(linear.weight.chunk(parts), biases, strict=True))


def _layer_scaled(block: nn.Module, half: int, out: torch.Tensor) -> torch.Tensor:
    """LayerScale of a block's first or second half: a module in timm's Block, a vector or nothing in EvaBlock."""
    if isinstance(block, Block):
        return getattr(block, f"ls{half}")(out)
    gamma = getattr(block, f"gamma_{half}")
    return out if gamma is None else gamma * out


def _part(module: nn.Module, name: str) -> nn.Module:
    return getattr(module, name, None) or nn.Identity()


def _unless_identity(module: nn.Module, name: str) -> nn.Module | None:
    found = _part(module, name)
    return None if isinstance(found, nn.Identity) else found
