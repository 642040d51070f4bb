"""Which classes win, with ties settled the same way on every machine."""

from __future__ import annotations

from torch import Tensor


def best_classes(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best classes of each image, best first; among equals the lowest index (algorithms.md 0.4, 7).

    `logits` [B, C] -> values [B, k] and class indices int64 [B, k]; k is cut to C. `torch.topk` promises no
    order among equals.

    Equal means equal to the last bit. Classes with the same texts may differ there when they were computed in
    different blocks: callers who have such classes give them one and the same logit first.

    Raises ValueError for a logit that is nan or infinite: sorting would put a nan first, and so let it win.
    """
    finite = logits.isfinite()
    if not finite.all():
        classes = (~finite).any(dim=0).nonzero().flatten().tolist()
        raise ValueError(
            f"logits of class number {classes[:10]} ({len(classes)} in all) are nan or infinite; they must be finite, "
            "and so must the features and texts that they come from"
        )
    values, indices = logits.sort(dim=-1, descending=True, stable=True)
    return values[:, :k], indices[:, :k]
