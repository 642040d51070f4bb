"""Averages: the baselines that matching is measured against (algorithms.md 3, 4 and 7.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def text_counts(mask: Tensor) -> Tensor:
    """How many texts each class has: `mask` bool [C, M] -> int64 [C].

    Raises ValueError when a class has none, since no score of it would mean anything.
    """
    counts = mask.sum(dim=1)
    if (counts == 0).any():
        empty = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"mask has no text for class number {empty}; every class needs at least one text")
    return counts


def _average_texts(texts: Tensor, mask: Tensor) -> Tensor:
    present = at_least_float32(texts).masked_fill(~mask.unsqueeze(-1), 0.0)
    return present.sum(dim=1) / text_counts(mask).unsqueeze(-1)


def mean_text(texts: Tensor, mask: Tensor) -> Tensor:
    """One unit vector a class: the mean of its unit texts, rescaled to length one (CuPL, algorithms.md 4).

    `texts` [C, M, d] unit rows, `mask` bool [C, M] -> [C, d]. What stands in a masked row does not matter.
    Dividing by the mean's length takes away the penalty on classes whose texts disagree (algorithms.md 3).
    """
    return F.normalize(_average_texts(texts, mask), dim=-1)


def mean_crop(crops: Tensor) -> Tensor:
    """One unit vector an image: the mean of its unit crops, rescaled to length one; [B, N, d] -> [B, d]."""
    return F.normalize(at_least_float32(crops).mean(dim=1), dim=-1)


def mean_cosine(crops: Tensor, texts: Tensor, mask: Tensor) -> Tensor:
    """The mean of all N x M_c cosines of an image's crops and a class's texts, in [-1, 1].

    `crops` [B, N, d] and `texts` [C, M, d] unit rows, `mask` bool [C, M] -> [B, C]. It is what transport
    becomes as epsilon grows (algorithms.md 7.1). A mean of products of sums needs no N x M matrix.
    """
    return at_least_float32(crops).mean(dim=1) @ _average_texts(texts, mask).T
