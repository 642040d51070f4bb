"""Crops in feature space: a window of CLIP's tokens, enlarged, through the last block (ABS; algorithms.md 8.3).

Only the CLS row of the last block is read, and CLS is the same for every crop. So its query is folded into
the keys once an image, bicubic resizing (linear) is moved behind the layer norm (whose variances come from
one Gram matrix an image), and no `[N, P, D]` tensor is ever built: one window costs a few matrix rows, with
the result of the full block (1e-5 in fp32).

Letters as in algorithms.md: B images, N windows, G grid side, P = G * G patches, D width, h heads, d joint
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

WORKING_SET = 1 << 24  # numbers in the largest intermediate tensor, 64 MB


def why_no_feature_crops(visual: nn.Module) -> str | None:
    """The reason why this image tower's tokens cannot be cropped, or None if they can."""
    if not isinstance(visual, VisionTransformer):
        return f"its image tower is a {type(visual).__name__}, not open_clip's VisionTransformer"
    if visual.attn_pool is not None or visual.pool_type != "tok":
        return "it pools its tokens, so no CLS token carries the image"
    blocks = visual.transformer.resblocks
    if len(blocks) < 2:
        return "it has a single block"
    if not isinstance(blocks[-1], ResidualAttentionBlock) or blocks[-1].attn.in_proj_weight is None:
        return f"its last block is a {type(blocks[-1]).__name__} with its own attention (q-k normalisation or scaling)"
    if visual.grid_size[0] != visual.grid_size[1]:
        return f"its token grid is {visual.grid_size[0]} x {visual.grid_size[1]}, not square"
    return None


class LastBlock:
    """The last block of an open_clip VisionTransformer, seen from its CLS token.

    It reads the tower's own parameters (in fp32) and holds none; the blocks before the last run in the
    context that `arithmetic` gives (an autocast, say). Raises ValueError for towers that it cannot serve.
    """

    def __init__(
        self, visual: nn.Module, arithmetic: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        reason = why_no_feature_crops(visual)
        if reason:
            raise ValueError(f"this model has no feature crops: {reason}; use raw crops with it")
        self.visual = visual
        self.arithmetic = arithmetic
        self.block = visual.transformer.resblocks[-1]
        self.grid: int = visual.grid_size[0]
        self.heads: int = self.block.attn.num_heads

    @torch.no_grad()
    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """The tokens that enter the block, fp32 `[B, 1 + P, D]`, CLS first, for normalised `pixels [B, 3, S, S]`."""
        before_last = len(self.visual.transformer.resblocks) - 2
        with self.arithmetic():
            found = self.visual.forward_intermediates(
                pixels,
                indices=[before_last],
                stop_early=True,
                intermediates_only=True,
                output_fmt="NLC",
                output_extra_tokens=True,
            )
        return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1).float()

    @torch.no_grad()
    def features(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the tower gives for the whole images: fp32 `[B, d]`, not normalised, from `tokens [B, 1 + P, D]`."""
        attention, normed = self._cls_attention(tokens)
        return self._finish(tokens[:, 0], attention @ normed)

    @torch.no_grad()
    def attention(self, tokens: torch.Tensor) -> torch.Tensor:
        """CLS-to-patch attention of the block, mean over heads: fp32 `[B, G, G]`; with CLS's share it sums to 1."""
        attention, _ = self._cls_attention(tokens)
        return attention[:, :, 1:].mean(dim=1).view(-1, self.grid, self.grid)

    @torch.no_grad()
    def crop_features(self, tokens: torch.Tensor, windows: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Features fp32 `[B, N, d]`, not normalised, of `windows [B, N, 4]` (r0, c0, r1, c1) of `tokens [B, 1 + P, D]`.

        A window's tokens are resized to G x G as F.interpolate(mode="bicubic", align_corners=False) does,
        then take part in the last block with the unchanged CLS token. Raises ValueError for a window that
        is empty or leaves the grid.
        """
        if isinstance(windows, torch.Tensor):
            windows = windows.cpu().numpy()
        indices = np.array(windows, dtype=np.int64)
        self._check_windows(indices, len(tokens))
        places = torch.from_numpy(indices).to(tokens.device)
        together = max(1, WORKING_SET // (max(1, indices.shape[1]) * self.grid**3))
        parts = zip(tokens.split(together), places.split(together), strict=True)
        return torch.cat([self._crop_features(part, place) for part, place in parts])

    def _crop_features(self, tokens: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        (images, count), grid, norm = windows.shape[:2], self.grid, self.block.ln_1
        cls, patches = tokens[:, 0], tokens[:, 1:]
        centred = patches - patches.mean(dim=-1, keepdim=True)
        down, across = self._resizers(windows)  # [B, N, G, G] both: enlarged row (column) x token row (column)
        deviation = self._deviations(centred, down, across)

        # Scores of the enlarged tokens: resize the scores of the tokens, then divide by the enlarged token's deviation.
        query = self._folded_query(cls)  # [B, h, D], LN1's weight included; its bias adds the same to every token
        scores = (query @ centred.mT).view(images, 1, self.heads, grid, grid)
        scores = down[:, :, None] @ scores @ across.mT[:, :, None] / deviation[:, :, None]
        cls_score = (query @ _standardized(cls, norm.eps)[..., None])[:, None].expand(-1, count, -1, -1)
        attention = torch.cat([cls_score, scores.flatten(3)], dim=-1).softmax(dim=-1)
        on_cls, on_patches = attention[..., :1], attention[..., 1:]

        # Mean of the layer-normed tokens under that attention: carry the weights back to the tokens, then sum those.
        weights = on_patches.unflatten(-1, (grid, grid)) / deviation[:, :, None]
        weights = down.mT[:, :, None] @ weights @ across[:, :, None]
        mean = weights.flatten(1, 2).flatten(2) @ centred  # [B, N h, D]
        mean = mean.view(images, count, self.heads, -1) + on_cls * _standardized(cls, norm.eps)[:, None, None]
        mean = mean * norm.weight + norm.bias
        repeated = cls[:, None].expand(-1, count, -1).reshape(images * count, -1)
        return self._finish(repeated, mean.flatten(0, 1)).view(images, count, -1)

    def _deviations(self, centred: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        """Standard deviation over D of every enlarged token, `[B, N, G, G]`, from the Gram matrix of the tokens.

        With enlarged token (p, q) = sum over i, j of down[p, i] across[q, j] z_ij, its squared length is a
        quadratic form in both; rows are summed first, for all windows in one product, then columns.
        """
        images, count, grid, _ = down.shape
        gram = (centred @ centred.mT).view(images, grid, grid, grid, grid)  # i, j, k, l
        gram = gram.permute(0, 1, 3, 2, 4).reshape(images, grid * grid, grid * grid)  # (i, k) x (j, l)
        rows = (down[..., :, None] * down[..., None, :]).view(images, count * grid, grid * grid)
        columns = (across[..., :, None] * across[..., None, :]).view(images, count, grid, grid * grid)
        squares = (rows @ gram).view(images, count, grid, grid * grid) @ columns.mT
        return (squares.clamp_min(0.0) / centred.shape[-1] + self.block.ln_1.eps).sqrt()

    def _cls_attention(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of CLS over all tokens `[B, h, 1 + P]`, and the layer-normed tokens `[B, 1 + P, D]`."""
        norm = self.block.ln_1
        standardized = _standardized(tokens, norm.eps)
        scores = self._folded_query(tokens[:, 0]) @ standardized.mT
        return scores.softmax(dim=-1), standardized * norm.weight + norm.bias

    def _folded_query(self, cls: torch.Tensor) -> torch.Tensor:
        """CLS's query folded into key matrix and LN1's weight, `[B, h, D]`: a score is its product with a token.

        The key bias and LN1's bias add the same number to every token's score, so the softmax does not see
        them.
        """
        attn, norm = self.block.attn, self.block.ln_1
        width = cls.shape[-1]
        normed = _standardized(cls, norm.eps) * norm.weight + norm.bias
        bias = None if attn.in_proj_bias is None else attn.in_proj_bias[:width]
        query = F.linear(normed, attn.in_proj_weight[:width], bias).unflatten(-1, (self.heads, -1))
        key = attn.in_proj_weight[width : 2 * width].view(self.heads, -1, width)
        return torch.einsum("bhk,hkd->bhd", query / math.sqrt(width // self.heads), key) * norm.weight

    def _finish(self, cls: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """From CLS and the mean that each head attends to, `[K, D]` and `[K, h, D]`, to features `[K, d]`.

        Values, output projection, MLP, final norm and projection of the tower, for one row an image or crop.
        """
        attn, block, width = self.block.attn, self.block, cls.shape[-1]
        value = attn.in_proj_weight[2 * width :].view(self.heads, -1, width)
        heard = torch.einsum("khd,hvd->khv", mean, value).flatten(1)
        if attn.in_proj_bias is not None:
            heard = heard + attn.in_proj_bias[2 * width :]  # attention sums to 1, so each head gets its bias once
        cls = cls + block.ls_1(attn.out_proj(heard))
        cls = self.visual.ln_post(cls + block.ls_2(block.mlp(block.ln_2(cls))))
        return cls if self.visual.proj is None else cls @ self.visual.proj

    def _resizers(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        table = self._table.to(windows.device)
        return table[windows[..., 0], windows[..., 2]], table[windows[..., 1], windows[..., 3]]

    @cached_property
    def _table(self) -> torch.Tensor:
        """Bicubic matrices of every span, `[G, G + 1, G, G]`: (start, end) -> enlarged position x token position."""
        table = torch.zeros(self.grid, self.grid + 1, self.grid, self.grid)
        for length in range(1, self.grid + 1):
            impulses = torch.eye(length).view(1, length, length, 1)
            matrix = F.interpolate(impulses, size=(self.grid, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
            for start in range(self.grid - length + 1):
                table[start, start + length, :, start : start + length] = matrix
        return table.to(self.visual.class_embedding.device)

    def _check_windows(self, windows: np.ndarray, images: int) -> None:
        if windows.ndim != 3 or windows.shape[0] != images or windows.shape[2] != 4:
            raise ValueError(f"windows must have the shape [{images}, N, 4], got {list(windows.shape)}")
        low, high = windows[..., :2], windows[..., 2:]
        bad = ((low < 0) | (high > self.grid) | (low >= high)).any(axis=-1)
        if bad.any():
            raise ValueError(f"window {windows[bad][0].tolist()} is empty or leaves the {self.grid} x {self.grid} grid")


def _standardized(tokens: torch.Tensor, eps: float) -> torch.Tensor:
    """A layer norm without its weight and bias."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=eps)
