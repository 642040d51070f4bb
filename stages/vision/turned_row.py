"""The folded form for blocks with rotary positions (EVA02): turn the query back instead of every enlarged key.

An enlarged window is a whole grid, so position p of it turns a key by R_p whatever the window: the score q . R_p k_p is
(R_p^T q) . k_p, and k_p is a resized key of the tokens over the enlarged token's deviation, plus a constant. So one
product an image gives every turned query against every token's key, and only those scores are resized (algorithms.md
8.3, with one query a position). Letters as in `one_row`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stages.vision.last_attention import LastAttention
from stages.vision.one_row import Arithmetic, FoldedRow, FullRow
from stages.vision.token_towers import Turn


class TurnedRow(FoldedRow):
    """As FoldedRow, for a last block that turns its keys: `turn` forwards, `turn_back` the other way."""

    def __init__(
        self, last: LastAttention, arithmetic: Arithmetic, *, patches: int, turn: Turn, turn_back: Turn
    ) -> None:
        super().__init__(last, arithmetic)
        self.full = FullRow(last, arithmetic, patches, turn)
        self.turn_back = turn_back

    def whole(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention `[K, h, T]` and what is heard `[K, h, v]`, of `tokens [K, T, D]`."""
        return self.full.whole(tokens)

    def _scores(
        self, cls: torch.Tensor, patches: torch.Tensor, down: torch.Tensor, across: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images, count, grid, _ = down.shape
        (weight, bias), _ = self.last.projections()
        constant = weight.new_zeros(len(weight)) if bias is None else bias
        if self.norm is not None:
            weight, constant = weight * self.norm.weight, weight @ self.norm.bias + constant
        keys = F.linear(patches, weight).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, P, v]
        query = self.last.query(cls)
        turned = self.turn_back(query[:, :, None].expand(-1, -1, grid * grid, -1))

        pairs = (turned @ keys.mT).view(images, self.heads, grid, grid, grid, grid)  # enlarged p, q; token i, j
        pairs = pairs.permute(0, 2, 4, 1, 3, 5).reshape(images, grid, grid, -1)  # B, p, i, (h, q, j)
        rows = (down.transpose(1, 2) @ pairs).view(images, grid, count, self.heads, grid, grid)  # B, p, N, h, q, j
        resized = (rows * across[:, None, :, None]).sum(dim=-1).transpose(1, 2)

        # The constant of every key: turned by its position for patches, as it is for the prefix, whose scores lack it.
        constant = constant.unflatten(0, (self.heads, -1))
        added = (turned @ constant[..., None])[..., 0] - (query * constant).sum(dim=-1, keepdim=True)
        return resized, added.view(images, self.heads, grid, grid).transpose(1, 2)[:, None]
