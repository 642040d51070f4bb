"""TDA: two caches that a stream of images fills, and that adapt its logits (algorithms.md 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .lanes import WIDTH
from .precision import at_least_float32
from .stream_caches import Columns, Decisions, Replay, StreamSettings, decide, entropy
from .threads import share

BLOCK = 512
"""Samples that are read together; results do not depend on it beyond rounding."""

# Samples of a task, and vectors of a product: half a megabyte of affinities, which stays in a core's second cache.
_ROWS, _TILE = 128, 1024


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


class Reader(Protocol):
    """Where samples come from, and how they are compared with what a cache keeps of others: N vectors an item."""

    @property
    def item(self) -> tuple[int, ...]:
        """The shape of an item, [N, d]."""

    def weights(self, predicted: np.ndarray) -> np.ndarray:
        """What each of the vectors of items of these classes counts, float32 [I, N]."""

    def read(self, samples: Tensor) -> Tensor:
        """These samples, float32 [b, ...]."""

    def items(self, read: Tensor, predicted: np.ndarray) -> Tensor:
        """What a cache keeps of samples that are predicted to be of these classes, [b, N, d]."""

    def queries(self, read: Tensor, predicted: np.ndarray) -> Queries:
        """The samples as they ask items of these classes."""


class Queries(Protocol):
    def affinities(self, vectors: Tensor, predicted: np.ndarray, out: Tensor) -> None:
        """Write the cosines to items' `vectors` [I, N, d] of these classes into `out` [I x N, W], W the number of
        samples rounded up to sixteen; what stands in the columns beyond them counts for nothing."""


def replay(
    reader: Reader, decisions: Decisions, logits: Tensor, order: Tensor, settings: StreamSettings, block: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The adapted logits of a stream whose caches are decided, as `iter_stream` gives them."""
    caches = [Replay(held, reader.item, settings.exclude_self) for held in decisions.caches]
    for start in range(0, len(order), block):
        samples = order[start : start + block]
        adapted = torch.empty(len(samples), logits.shape[1])
        read = reader.read(samples)
        met = []
        for cache in caches:
            columns = cache.columns(start, start + len(samples))
            predicted = decisions.predicted[columns.steps]
            entered = reader.items(read[columns.entering], predicted[len(cache.vectors) :])
            met.append(_Met(cache, columns, predicted, entered))
        share(range(0, len(samples), _ROWS), partial(_voter, reader, met, read, logits, samples, adapted))
        for of in met:
            of.cache.keep(of.columns, of.entered.numpy())
        yield samples, adapted


@dataclass(frozen=True)
class _Met:
    """What a block of samples meets in one cache: its items' places and classes, and those that enter, [E, N, d]."""

    cache: Replay
    columns: Columns
    predicted: np.ndarray
    entered: Tensor

    def vectors(self) -> Iterator[tuple[slice, Tensor]]:
        """All items' vectors, some at a time, with the places of the items."""
        first = 0
        for vectors in (torch.from_numpy(self.cache.vectors), self.entered):
            step = max(1, _TILE // max(1, vectors.shape[1]))
            for some in vectors.split(step) if len(vectors) else ():
                yield slice(first, first + len(some)), some
                first += len(some)


def _voter(
    reader: Reader, met: list[_Met], read: Tensor, logits: Tensor, samples: Tensor, adapted: Tensor
) -> Callable[[int], None]:
    """What adapts the logits of the samples from a number on, `_ROWS` of them."""
    affinities = torch.empty(max(_TILE, reader.item[0]) * _ROWS)
    classes = np.unique(np.concatenate([of.predicted for of in met])) if met else np.zeros(0, np.int64)

    def vote(row: int) -> None:
        some = slice(row, row + _ROWS)
        queries = reader.queries(read[some], classes)
        width = len(read[some]) + -len(read[some]) % WIDTH
        votes = torch.zeros(logits.shape[1], width)
        for of in met:
            for items, vectors in of.vectors():
                predicted = of.predicted[items]
                out = affinities[: vectors.shape[0] * vectors.shape[1] * width].view(-1, width)
                queries.affinities(vectors, predicted, out)
                of.cache.vote(of.columns, items, out.numpy(), reader.weights(predicted), row, votes.numpy())
        adapted[some] = logits[samples[some]].cpu().float() + votes[:, : len(read[some])].T

    return vote


def gather(parts: Iterator[tuple[Tensor, Tensor]], logits: Tensor) -> Tensor:
    """The blocks of a stream in one tensor, rows as in `logits`."""
    adapted = torch.empty(logits.shape)
    for samples, rows in parts:
        adapted[samples] = rows
    return adapted


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
