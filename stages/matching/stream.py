"""TDA: two caches that a stream of images fills, and that adapt its logits (algorithms.md 10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .lanes import WIDTH
from .precision import at_least_float32
from .stream_caches import Decisions, Replay, StreamSettings, decide, entropy

BLOCK = 512
"""Samples that are read together; results do not depend on it beyond rounding."""


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


class Block(Protocol):
    """Some samples of a stream."""

    def items(self, rows: np.ndarray, predicted: np.ndarray) -> Tensor:
        """What a cache keeps of these samples, which are predicted to be of these classes: [E, ...]."""

    def respond(self, vectors: Tensor, predicted: np.ndarray, beta: float, out: Tensor) -> None:
        """Write exp(-beta (1 - affinity)) of items [I, ...] of these classes to all samples into `out` [I, W], W the
        samples' number rounded up to sixteen."""


class Reader(Protocol):
    """Where samples come from, and how they are compared."""

    @property
    def item(self) -> tuple[int, ...]:
        """The shape of what a cache keeps of a sample."""

    def read(self, samples: Tensor, predicted: np.ndarray) -> Block:
        """These samples, which may be compared with items of these classes."""


def replay(
    reader: Reader, decisions: Decisions, logits: Tensor, order: Tensor, settings: StreamSettings, block: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The adapted logits of a stream whose caches are decided, as `iter_stream` gives them."""
    caches = [(held, Replay(held, reader.item, settings.exclude_self)) for held in decisions.caches]
    for start in range(0, len(order), block):
        samples = order[start : start + block]
        with torch.inference_mode():
            votes = torch.zeros(logits.shape[1], len(samples) + -len(samples) % WIDTH)
            columns = [cache.columns(start, start + len(samples)) for _, cache in caches]
            met = [decisions.predicted[found.steps] for found in columns]
            part = reader.read(samples, np.concatenate([np.zeros(0, np.int64), *met]))
            for (held, cache), found, classes in zip(caches, columns, met, strict=True):
                known = len(cache.vectors)
                entered = part.items(found.entering, classes[known:])
                responses = torch.empty(len(classes), votes.shape[1])
                part.respond(cache.vectors, classes[:known], held.beta, responses[:known])
                part.respond(entered, classes[known:], held.beta, responses[known:])
                cache.vote(found, responses, votes)
                cache.keep(found, entered)
            votes = votes[:, : len(samples)].T
        yield samples, logits[samples].cpu().float() + votes


def gather(parts: Iterator[tuple[Tensor, Tensor]], logits: Tensor) -> Tensor:
    """The blocks of a stream in one tensor, rows as in `logits`."""
    adapted = torch.empty(logits.shape)
    for samples, rows in parts:
        adapted[samples] = rows
    return adapted


@dataclass(frozen=True)
class _Features:
    """A sample is its feature, and so is what is kept of it."""

    features: Tensor

    @property
    def item(self) -> tuple[int, ...]:
        return self.features.shape[1:]

    def read(self, samples: Tensor, predicted: np.ndarray) -> _FeatureBlock:
        rows = self.features[samples].cpu().float()
        return _FeatureBlock(torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % WIDTH)))


@dataclass(frozen=True)
class _FeatureBlock:
    rows: Tensor

    def items(self, rows: np.ndarray, predicted: np.ndarray) -> Tensor:
        return self.rows[torch.from_numpy(rows)]

    def respond(self, vectors: Tensor, predicted: np.ndarray, beta: float, out: Tensor) -> None:
        torch.mm(vectors, self.rows.T, out=out)
        out.sub_(1).mul_(beta).exp_()


@dataclass(frozen=True)
class Selected:
    """Means of an image's surest views: `features` [B, d], not unit rows; `logits` [B, C]; and of their mean
    `probabilities` [B, C] the `entropies` [B] in nats."""

    features: Tensor
    logits: Tensor
    entropies: Tensor
    probabilities: Tensor


def select_views(features: Tensor, logits: Tensor, share: float = 0.1) -> Selected:
    """The int(share x V) views of least entropy, one at least, in one: TDA's form with AugMix (algorithms.md 10.1).

    `features` [B, V, d] unit rows, `logits` [B, V, C] times the logit scale. Of equal views the first are taken.
    Raises ValueError for a share outside 0 to 1 and for images without views.
    """
    count = features.shape[1]
    if not 0 < share <= 1 or not count:
        raise ValueError(f"a share of {share} of {count} views; it must be above 0 and at most 1, of one view at least")
    features, logits = at_least_float32(features), at_least_float32(logits)
    surest = entropy(logits).argsort(dim=1, stable=True)[:, : max(1, int(share * count))].unsqueeze(-1)
    chosen = logits.take_along_dim(surest, dim=1)
    probabilities = chosen.softmax(dim=-1).mean(dim=1)
    # Of the logarithm of the mean, which is a sum of exponentials that none of them can leave.
    log_mean = chosen.log_softmax(dim=-1).logsumexp(dim=1) - torch.tensor(float(surest.shape[1])).log()
    return Selected(
        features.take_along_dim(surest, dim=1).mean(dim=1),
        chosen.mean(dim=1),
        -(log_mean.exp() * log_mean).sum(dim=-1),
        probabilities,
    )
