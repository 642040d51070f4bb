"""TDA: two caches that a stream of images fills, and that adapt its logits (algorithms.md 10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .lanes import WIDTH
from .stream_caches import StreamSettings, decide
from .stream_replay import BLOCK, gather, replay


def run_stream(
    features: Tensor,
    logits: Tensor,
    order: Tensor,
    settings: StreamSettings,
    *,
    entropies: Tensor | None = None,
    probabilities: Tensor | None = None,
    block: int = BLOCK,
) -> Tensor:
    """All adapted logits at once, float32 [T, C], rows as in `logits`; see `iter_stream`."""
    parts = iter_stream(
        features, logits, order, settings, entropies=entropies, probabilities=probabilities, block=block
    )
    return gather(parts, logits)


def iter_stream(
    features: Tensor,
    logits: Tensor,
    order: Tensor,
    settings: StreamSettings,
    *,
    entropies: Tensor | None = None,
    probabilities: Tensor | None = None,
    block: int = BLOCK,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Adapted logits, a block of samples at a time: pairs of sample numbers int64 [b] and float32 [b, C].

    adapted = logits + sum over positive items of alpha exp(-beta (1 - x . K)) for the class predicted of the item
                     - sum over negative items of the same for every class within the bounds of its mask

    `features` [T, d], `logits` [T, C] already times the logit scale, in any float type; `order` int64 [T], a
    permutation: sample order[0] comes first. A sample is a candidate for the caches of its predicted class (the first
    with the largest logit) and is scored when it has entered. The caches are empty at first. Computed in float32 on
    the CPU, with a block of logits and the caches' slots in memory; the rest may be mapped from a file.

    `entropies` [T] in nats and `probabilities` [T, C] take the place of those of softmax(logits), for samples that are
    means of views (`select_views`).

    Raises ValueError for an order that is no permutation, for shapes that disagree, and for logits or entropies that
    are not finite.
    """
    if len(features) != len(logits):
        raise ValueError(f"features {list(features.shape)} and logits {list(logits.shape)} are of different samples")
    decisions = decide(logits, order, settings, entropies=entropies, probabilities=probabilities)
    yield from replay(_Features(features), decisions, logits, order, settings, block)


@dataclass(frozen=True)
class _Features:
    """A sample is its feature, which is also what is kept of it."""

    features: Tensor

    @property
    def item(self) -> tuple[int, ...]:
        return 1, self.features.shape[1]

    def weights(self, predicted: np.ndarray) -> np.ndarray:
        return np.ones((len(predicted), 1), np.float32)

    def read(self, samples: Tensor) -> Tensor:
        return self.features[samples].cpu().float()

    def items(self, read: Tensor, predicted: np.ndarray) -> Tensor:
        return read.unsqueeze(1)

    def queries(self, read: Tensor, predicted: np.ndarray) -> _FeatureQueries:
        return _FeatureQueries(torch.nn.functional.pad(read, (0, 0, 0, -len(read) % WIDTH)))


@dataclass(frozen=True)
class _FeatureQueries:
    rows: Tensor

    def affinities(self, vectors: Tensor, predicted: np.ndarray, out: Tensor) -> None:
        torch.mm(vectors.flatten(0, 1), self.rows.T, out=out)
