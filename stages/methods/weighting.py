"""Weights of crops and texts by their relevance, and the averages that they make (algorithms.md 3, 6 and 7.4)."""

from __future__ import annotations

import torch
from torch import Tensor


def equal_weights(mask: Tensor) -> Tensor:
    """The same weight for each text of a class: `mask` bool [C, M] -> [C, M], rows sum to 1, padding 0."""
    weights = mask.float()
    return weights / weights.sum(dim=1, keepdim=True)


def crop_relevance(nearness: Tensor, scale: float, counts: Tensor | None = None) -> Tensor:
    """w = softmax of scale x cosine over an image's crops: `nearness` [B, N] -> [B, N], rows sum to 1.

    `nearness` is each crop's cosine with the whole image; `counts` [N] says how often each crop stands there, for
    crops drawn with replacement (None: once each).
    """
    logits = scale * nearness
    if counts is not None:
        logits = logits + counts.to(nearness).log()
    return logits.softmax(dim=1)


def text_relevance(vectors: Tensor, mask: Tensor, labels: Tensor, scale: float) -> Tensor:
    """v = softmax of scale x cosine over a class's texts, [C, M]; rows sum to 1, padding is 0.

    `vectors` [C, M, d], `mask` bool [C, M], `labels` [C, d] the prompt with the class's name alone; unit rows.
    """
    nearness = torch.einsum("cmd,cd->cm", vectors, labels)
    return (scale * nearness).masked_fill(~mask, -torch.inf).softmax(dim=1)


def weighted_sum(vectors: Tensor, weights: Tensor) -> Tensor:
    """sum_k weights_k vectors_k: [R, K, d] and [R, K] -> [R, d]."""
    return torch.bmm(weights.unsqueeze(1), vectors).squeeze(1)
