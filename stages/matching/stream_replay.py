"""The replay of a stream whose caches are decided: votes of what they held, a block of samples at a time.

Samples of a block are shared by threads. Each compares its own with the items by tiles that stay in cache, and lets
the votes of an item count where it was in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .lanes import WIDTH
from .stream_caches import Columns, Decisions, Replay, StreamSettings
from .threads import share

BLOCK = 512
"""Samples that are read together; results do not depend on it beyond rounding."""

# Samples of a task, and vectors of a product: half a megabyte of affinities, which stays in a core's second cache.
_ROWS, _TILE = 128, 1024


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
