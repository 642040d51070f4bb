"""Tip-Adapter-F: the keys of a cache are learned, their classes stay (algorithms.md 9; D&D's likewise, 7.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .cache import Affinities, class_votes


@dataclass(frozen=True)
class TrainingSettings:
    """AdamW as published. `batch` images make a step; their gradients are summed up from `micro_batch` at a time, which
    is what memory depends on, and changes nothing beyond rounding. `seed` draws the order of the images."""

    epochs: int = 20
    learning_rate: float = 1e-3
    epsilon: float = 1e-4
    weight_decay: float = 0.01
    batch: int = 256
    micro_batch: int = 64
    seed: int = 0


def train_keys(
    keys: Tensor,
    affinity: Callable[[Tensor, Tensor], Affinities],
    queries: Tensor,
    base: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    settings: TrainingSettings,
    after_epoch: Callable[[Tensor], float] | None = None,
) -> Tensor:
    """Keys [S, d] in float32 that make the cross-entropy of base + alpha x votes small on labelled images.

    `keys` [S, d] is where they start, and stays as it is. `affinity(queries, keys)` asks the cache, differentiably in
    the keys: one of the three of `cache`, with these keys. `queries` [V, n, ...] are V versions of the n training
    images (augmentations; one will do), and `base` [V, n, C] their logits without the cache; epoch e reads version
    e mod V. `labels` int64 [n]. Learned keys are no unit rows: an affinity may exceed 1.

    The learning rate falls along a cosine, step by step, to 0. With `after_epoch`, which gets the keys of each epoch
    and says how good they are (accuracy on validation images, never on those of the test), the best are returned, of
    equals the first; else the last. The same seed gives the same keys, whatever was drawn elsewhere.

    Raises ValueError for shapes that disagree, for no epochs, and when keys are no longer finite.
    """
    if queries.shape[:2] != base.shape[:2] or labels.shape != base.shape[1:2] or not base.numel():
        shapes = f"queries {list(queries.shape)}, base {list(base.shape)} and labels {list(labels.shape)}"
        raise ValueError(f"{shapes} must be [V, n, ...], [V, n, C] and [n], of one image at least")
    if settings.epochs < 1:
        raise ValueError(f"{settings.epochs} epochs; training needs at least one")
    learned = keys.detach().float().clone().requires_grad_()
    optimizer = torch.optim.AdamW(
        [learned], lr=settings.learning_rate, eps=settings.epsilon, weight_decay=settings.weight_decay
    )
    versions, count = base.shape[:2]
    steps = settings.epochs * -(-count // settings.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(settings.seed)
    best, kept = -float("inf"), learned
    for epoch in range(settings.epochs):
        seen, logits = queries[epoch % versions], base[epoch % versions]
        for rows in torch.randperm(count, generator=draw).split(settings.batch):
            optimizer.zero_grad()
            with torch.enable_grad():
                for some in rows.split(settings.micro_batch):
                    found = affinity(seen[some], learned)
                    _loss(found, logits[some], labels[some], alpha, beta).div(len(rows)).backward()
            optimizer.step()
            schedule.step()
        if not learned.isfinite().all():
            raise ValueError(f"keys are not finite after epoch {epoch + 1}; a lower learning rate or beta may help")
        if after_epoch is not None and (score := after_epoch(learned.detach())) > best:
            best, kept = score, learned.detach().clone()
    return kept.detach()


def _loss(found: Affinities, base: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """The sum of the images' cross-entropies."""
    votes = class_votes(found.values, found.owners, base.shape[1], beta=beta, weights=found.weights)
    return F.cross_entropy(base.float() + alpha * votes, labels, reduction="sum")
