"""Which classes win, with ties settled the same way on every machine."""

from __future__ import annotations

from torch import Tensor


def best_classes(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best classes of each image, best first; among equals the lowest index (algorithms.md 0.4, 7).

    `logits` [B, C] -> values [B, k] and class indices int64 [B, k]; k is cut to C. `torch.topk` promises no
    order among equals, and duplicate class names do give equal logits.
    """
    values, indices = logits.sort(dim=-1, descending=True, stable=True)
    return values[:, :k], indices[:, :k]
