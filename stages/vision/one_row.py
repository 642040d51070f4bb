"""One row of the last attention, for whole images and for crops: the folded form, and the form with all keys.

Both give what each head hears, before output projection and MLP (`LastAttention.close`). Letters as in
algorithms.md 8.3: B images, N windows, K rows, G grid side, P = G * G patches, R prefix tokens, T = R + P, D width,
h heads, v width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import nn

from stages.vision.last_attention import LastAttention
from stages.vision.token_towers import Turn
from stages.vision.windows import enlarge

Arithmetic = Callable[[], AbstractContextManager[object]]
ENLARGED = 1 << 24  # numbers in the tensor of enlarged tokens, 64 MB


def folds(last: LastAttention) -> bool:
    """Whether a key is linear in a token but for the token's own length: a layer norm or none, and none on keys."""
    norm = last.norm
    plain = norm is None or (isinstance(norm, nn.LayerNorm) and norm.weight is not None and norm.bias is not None)
    return plain and last.key_norm is None


class FoldedRow:
    """The query folded into the keys, bicubic resizing moved behind the layer norm (algorithms.md 8.3).

    The enlarged tokens' variances come from one Gram matrix an image; no `[N, P, D]` tensor is built. Key bias and
    the norm's bias add the same to every token's score, so the softmax does not see them; attention sums to 1, so
    values get theirs once.
    """

    def __init__(self, last: LastAttention, arithmetic: Arithmetic) -> None:
        self.last, self.norm, self.heads = last, last.norm, last.heads
        self.arithmetic = arithmetic

    def whole(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention `[K, h, T]` and what is heard `[K, h, v]`, of `tokens [K, T, D]`."""
        standard = self._standardized(tokens)
        attention = (self._folded_query(tokens[:, 0]) @ standard.mT).softmax(dim=-1)
        weight, bias = self._values()
        return attention, torch.einsum("khd,hvd->khv", attention @ standard, weight) + bias

    def crops(self, tokens: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        """What is heard `[B, N, h, v]` in windows of `tokens [B, T, D]`, enlarged by `down`, `across [B, N, G, G]`."""
        images, count, grid, _ = down.shape
        heads, prefix = self.heads, tokens.shape[1] - grid * grid
        standard = self._standardized(tokens[:, :prefix])
        patches = tokens[:, prefix:]
        if self.norm is not None:
            patches = patches - patches.mean(dim=-1, keepdim=True)
        factor = self._factors(patches, down, across)  # [B, N, G, 1, G]

        resized, added = self._scores(tokens[:, 0], patches, down, across)
        scores = resized * factor + added
        first = (self._folded_query(tokens[:, 0]) @ standard.mT)[:, None].expand(-1, count, -1, -1)
        attention = torch.cat([first, scores.transpose(2, 3).flatten(3)], dim=-1).softmax(dim=-1)

        # What is heard: carry the attention back to the tokens, then sum their values.
        carried = attention[..., prefix:].unflatten(-1, (grid, grid)).transpose(2, 3) * factor
        carried = carried.reshape(images, count, grid * heads, grid) @ across
        carried = down.mT @ carried.view(images, count, grid, heads * grid)
        carried = carried.view(images, count, grid, heads, grid).permute(0, 3, 1, 2, 4).flatten(3)  # [B, h, N, P]
        weight, bias = self._values()
        with self.arithmetic():
            values = F.linear(patches, weight.flatten(0, 1)).unflatten(-1, (heads, -1)).transpose(1, 2)
            heard = (carried @ values).transpose(1, 2).float()
        on_prefix = attention[..., :prefix].transpose(1, 2) @ torch.einsum("brd,hvd->bhrv", standard, weight)
        return heard + on_prefix.transpose(1, 2) + bias

    def _scores(
        self, cls: torch.Tensor, patches: torch.Tensor, down: torch.Tensor, across: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Scores of the enlarged tokens before their deviation divides them, `[B, N, G, h, G]`, and what is added then.

        The scores of the tokens are resized: rows for all windows at once, then columns.
        """
        images, count, grid, _ = down.shape
        scores = (self._folded_query(cls) @ patches.mT).view(images, self.heads, grid, grid).transpose(1, 2).flatten(2)
        scores = (down.flatten(1, 2) @ scores).view(images, count, grid * self.heads, grid) @ across.mT
        return scores.view(images, count, grid, self.heads, grid), 0.0

    def _factors(self, centred: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor | float:
        """One over the standard deviation over D of every enlarged token, `[B, N, G, 1, G]`; 1 without a norm.

        With enlarged token (p, q) = sum over i, j of down[p, i] across[q, j] z_ij, its squared length is a quadratic
        form in both; rows are summed first, for all windows in one product, then columns.
        """
        if self.norm is None:
            return 1.0
        images, count, grid, _ = down.shape
        spread = centred * centred.shape[-1] ** -0.5  # mean squares then, which half precision can hold
        rows = (down[..., :, None] * down[..., None, :]).view(images, count * grid, grid * grid)
        with self.arithmetic():
            gram = (spread @ spread.mT).view(images, grid, grid, grid, grid)  # i, j, k, l
            gram = gram.permute(0, 1, 3, 2, 4).reshape(images, grid * grid, grid * grid)  # (i, k) x (j, l)
            rows = (rows @ gram).view(images, count, grid, grid * grid).float()
        columns = (across[..., :, None] * across[..., None, :]).view(images, count, grid, grid * grid)
        return (rows @ columns.mT).clamp_min_(0.0).add_(self.norm.eps).rsqrt_()[:, :, :, None]

    def _standardized(self, tokens: torch.Tensor) -> torch.Tensor:
        """The norm without its weight and bias."""
        if self.norm is None:
            return tokens
        return F.layer_norm(tokens, tokens.shape[-1:], eps=self.norm.eps)

    def _folded_query(self, cls: torch.Tensor) -> torch.Tensor:
        """The query folded into key matrix and the norm's weight, `[B, h, D]`: a score is its product with a token."""
        (weight, _), _ = self.last.projections()
        folded = torch.einsum("bhv,hvd->bhd", self.last.query(cls), weight.unflatten(0, (self.heads, -1)))
        return folded if self.norm is None else folded * self.norm.weight

    def _values(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of standardized tokens: weight `[h, v, D]` with the norm's in it, and bias `[h, v]`."""
        _, (weight, bias) = self.last.projections()
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        if self.norm is not None:
            weight, bias = weight * self.norm.weight, weight @ self.norm.bias + bias
        return weight.unflatten(0, (self.heads, -1)), bias.unflatten(0, (self.heads, -1))


class FullRow:
    """All keys and values of the enlarged tokens, one query row: for q-k normalisation and RMS norms.

    An enlarged window is a G x G grid again, so the positions of the whole grid apply to it.
    """

    def __init__(self, last: LastAttention, arithmetic: Arithmetic, patches: int, turn: Turn | None) -> None:
        self.last, self.arithmetic = last, arithmetic
        self.patches, self.turn = patches, turn

    def whole(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention `[K, h, T]` and what is heard `[K, h, v]`, of `tokens [K, T, D]`."""
        normed = tokens if self.last.norm is None else self.last.norm(tokens)
        with self.arithmetic():
            keys, values = (
                F.linear(normed, weight, bias).unflatten(-1, (self.last.heads, -1)).transpose(1, 2)
                for weight, bias in self.last.projections()
            )
        keys = keys.float() if self.last.key_norm is None else self.last.key_norm(keys.float())
        if self.turn is not None:
            prefix = tokens.shape[1] - self.patches
            keys = torch.cat([keys[:, :, :prefix], self.turn(keys[:, :, prefix:])], dim=2)
        attention = (keys @ self.last.query(tokens[:, 0])[..., None])[..., 0].softmax(dim=-1)
        return attention, (attention[:, :, None] @ values.float())[:, :, 0]

    def crops(self, tokens: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        """What is heard `[B, N, h, v]` in windows of `tokens [B, T, D]`, enlarged by `down`, `across [B, N, G, G]`."""
        parts = [self.whole(part)[1] for part in enlarged_parts(tokens, down, across)]
        return torch.cat(parts).unflatten(0, down.shape[:2])


def enlarged_parts(tokens: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> Iterator[torch.Tensor]:
    """The enlarged windows of `tokens [B, R + P, D]` behind the prefix tokens of their image, `[K, R + P, D]` each.

    In the order of images, then windows; as many at a time as `ENLARGED` numbers hold.
    """
    prefix = tokens.shape[1] - down.shape[-1] ** 2
    at_once = max(1, ENLARGED // tokens[0].numel())
    for number in range(len(tokens)):
        before, patches = tokens[number : number + 1, :prefix], tokens[number : number + 1, prefix:].contiguous()
        for start in range(0, down.shape[1], at_once):
            place = (slice(number, number + 1), slice(start, start + at_once))
            crops = enlarge(patches, down[place], across[place])[0]
            yield torch.cat([before.expand(len(crops), -1, -1), crops], dim=1)
