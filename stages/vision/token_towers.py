"""Image towers as a row of layers that tokens pass: open_clip's VisionTransformer, and timm's behind open_clip.

A layer is a block, and, in towers that pool by attention, the pooling head after the blocks. The last layer is read
through one query (`last_attention`). Letters as in algorithms.md: B images, G grid side, P = G * G patches, R prefix
tokens (CLS first, then registers), D width, d joint dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers import AttentionPoolLatent, apply_rot_embed_cat
from timm.models import eva, vision_transformer
from torch import nn

from stages.vision.last_attention import CocaPool, LastAttention, LatentPool, block_reader

Turn = Callable[[torch.Tensor], torch.Tensor]  # of the patches' keys [K, h, P, v] by their rotary positions


class OpenClipTokens:
    """The tokens of an open_clip VisionTransformer with a CLS token."""

    def __init__(self, visual: VisionTransformer, last: LastAttention) -> None:
        self.visual, self.last = visual, last
        self.blocks = visual.transformer.resblocks
        self.layers = len(self.blocks) + (visual.attn_pool is not None)
        self.grid: int = visual.grid_size[0]

    def prefix(self, layer: int) -> int:
        """How many tokens before the patches enter a layer."""
        return 1

    def enter(self, pixels: torch.Tensor) -> torch.Tensor:
        """The tokens that enter layer 0, `[B, R + P, D]`, of normalised `pixels [B, 3, S, S]`."""
        return self.visual._embeds(pixels)

    def through(self, tokens: torch.Tensor, layer: int) -> torch.Tensor:
        """The tokens that leave a layer that is not the last."""
        return self.blocks[layer](tokens)

    def turns(self) -> None:
        """What the last layer does to the patches' keys for their positions: nothing here."""

    def exact(self) -> list[nn.Module | nn.Parameter]:
        """What computes features from the tokens that enter the last layer: it stays in fp32 whatever the precision."""
        last = self.blocks[-1] if self.visual.attn_pool is None else self.visual.attn_pool
        return [last, self.visual.ln_post, *([] if self.visual.proj is None else [self.visual.proj])]

    def finish(self, row: torch.Tensor) -> torch.Tensor:
        """Features `[K, d]` of the last layer's rows `[K, D]`."""
        row = self.visual.ln_post(row)
        return row if self.visual.proj is None else row @ self.visual.proj


class TimmTokens:
    """The tokens of a timm VisionTransformer or Eva behind open_clip's adapter."""

    def __init__(self, visual: TimmModel, last: LastAttention) -> None:
        self.visual, self.trunk, self.last = visual, visual.trunk, last
        self.blocks = visual.trunk.blocks
        self.pools = isinstance(last, LatentPool)
        self.layers = len(self.blocks) + self.pools
        self.grid: int = self.trunk.patch_embed.grid_size[0]

    def prefix(self, layer: int) -> int:
        """How many tokens before the patches enter a layer; SigLIP's kind of pooling head reads patches only."""
        if self.pools and layer == self.layers - 1 and not getattr(self.trunk, "pool_include_prefix", True):
            return 0
        return self.trunk.num_prefix_tokens

    def enter(self, pixels: torch.Tensor) -> torch.Tensor:
        """The tokens that enter layer 0, `[B, R + P, D]`, of normalised `pixels [B, 3, S, S]`."""
        tokens = self.trunk._pos_embed(self.trunk.patch_embed(pixels))
        return self.trunk.norm_pre(tokens[0] if isinstance(tokens, tuple) else tokens)

    def through(self, tokens: torch.Tensor, layer: int) -> torch.Tensor:
        """The tokens that leave a layer that is not the last."""
        rotation = self._rotation(layer)
        left = self.blocks[layer](tokens) if rotation is None else self.blocks[layer](tokens, rope=rotation)
        return left[:, self.prefix(layer) - self.prefix(layer + 1) :]

    def turns(self) -> tuple[Turn, Turn] | None:
        """What the last layer does to the patches' keys `[K, h, P, v]` for their positions, and the inverse."""
        rotation = None if self.pools else self._rotation(self.layers - 1)
        if rotation is None:
            return None
        sine, cosine = rotation.chunk(2, dim=-1)
        half = getattr(self.last.attn, "rotate_half", False)
        embeddings = (rotation, torch.cat([-sine, cosine], dim=-1))
        return tuple(partial(apply_rot_embed_cat, emb=emb, half=half) for emb in embeddings)

    def _rotation(self, layer: int) -> torch.Tensor | None:
        """Rotary positions of a block's patches."""
        rope = getattr(self.trunk, "rope", None)
        if rope is None:
            return None
        shape = {} if hasattr(rope, "feat_shape") else {"shape": self.trunk.patch_embed.grid_size}
        found = rope.get_embed(**shape)
        return found[layer] if self.trunk.rope_mixed else found

    def exact(self) -> list[nn.Module | nn.Parameter]:
        """What computes features from the tokens that enter the last layer: it stays in fp32 whatever the precision."""
        trunk = self.trunk
        last = trunk.attn_pool if self.pools else self.blocks[-1]
        return [last, trunk.norm, trunk.fc_norm, trunk.head, self.visual.head]

    def finish(self, row: torch.Tensor) -> torch.Tensor:
        """Features `[K, d]` of the last layer's rows `[K, D]`."""
        trunk = self.trunk
        row = row if self.pools else trunk.norm(row)  # a pooling head comes after this norm
        return self.visual.head(trunk.head(trunk.head_drop(trunk.fc_norm(row))))


TokenTower = OpenClipTokens | TimmTokens


def token_tower(visual: nn.Module) -> TokenTower | str:
    """The tower as a row of layers, or the reason why its tokens cannot be cropped."""
    if isinstance(visual, VisionTransformer):
        return _open_clip_tokens(visual)
    if isinstance(visual, TimmModel):
        return _timm_tokens(visual)
    return f"its image tower is a {type(visual).__name__}, which has no tokens to crop"


def _open_clip_tokens(visual: VisionTransformer) -> OpenClipTokens | str:
    if visual.attn_pool is not None and visual.attn_pool_contrastive is not None:
        return "it pools its tokens twice"
    if visual.pool_type != "tok":
        return "it averages its tokens, so no single row carries the image"
    if visual.grid_size[0] != visual.grid_size[1]:
        return f"its token grid is {visual.grid_size[0]} x {visual.grid_size[1]}, not square"
    last = block_reader(visual.transformer.resblocks[-1]) if visual.attn_pool is None else CocaPool(visual.attn_pool)
    return last if isinstance(last, str) else OpenClipTokens(visual, last)


def _timm_tokens(visual: TimmModel) -> TimmTokens | str:
    trunk = visual.trunk
    if type(trunk) not in (vision_transformer.VisionTransformer, eva.Eva):
        return f"its image tower is timm's {type(trunk).__name__}, whose tokens are not one grid with a CLS token"
    if trunk.global_pool not in ("token", "map"):
        return "it averages its tokens, so no single row carries the image"
    rows, columns = trunk.patch_embed.grid_size
    if rows != columns:
        return f"its token grid is {rows} x {columns}, not square"
    if trunk.global_pool == "token":
        last = block_reader(trunk.blocks[-1])
        return last if isinstance(last, str) else TimmTokens(visual, last)
    pool = trunk.attn_pool
    if not isinstance(pool, AttentionPoolLatent) or pool.latent_len != 1 or pool.pos_embed is not None:
        return f"its pooling head is a {type(pool).__name__} with several queries or with positions"
    return TimmTokens(visual, LatentPool(pool, trunk.norm))
