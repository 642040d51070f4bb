"""The search for a cache's alpha and beta on validation images, all pairs at once (algorithms.md 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .compiled_search import count_hits
from .lanes import WIDTH
from .precision import at_least_float32
from .threads import share

ALPHAS, BETAS = 20, 200
_LOWEST = 0.1
# Affinities that a thread holds turned, 2 MB; each of them is read once a beta.
_BLOCK_ELEMENTS = 2**19


def grid(max_alpha: float, max_beta: float) -> tuple[list[float], list[float]]:
    """The 20 alphas and 200 betas of Tip-Adapter's search: evenly from .1 up to the highest, which is left out."""

    def values(highest: float, count: int) -> list[float]:
        return [_LOWEST + i * (highest - _LOWEST) / count for i in range(count)]

    return values(max_alpha, ALPHAS), values(max_beta, BETAS)


@dataclass(frozen=True)
class Found:
    """The best pair, the accuracy that it has, and the right answers of all: `hits` int64 [betas, alphas]."""

    alpha: float
    beta: float
    accuracy: float
    hits: Tensor


class CacheSearch:
    """Counts right answers of base + alpha x votes(beta) for every alpha and beta, batch by batch.

    Affinities are computed once, by the caller; an exponential is taken once an entry and beta; and alphas cost next
    to nothing, since those for which an image's label wins are an interval. Nothing of size B x C x alphas exists.
    """

    def __init__(self, alphas: list[float], betas: list[float]):
        """Any numbers in any order. Raises ValueError where there are none."""
        if not alphas or not betas:
            raise ValueError(f"a search over {len(alphas)} alphas and {len(betas)} betas; give at least one of each")
        self._alphas, self._betas = list(alphas), list(betas)
        self._hits = torch.zeros(len(betas), len(alphas), dtype=torch.int64)
        self._images = 0

    def add(
        self, base: Tensor, affinities: Tensor, owners: Tensor, labels: Tensor, weights: Tensor | None = None
    ) -> None:
        """Count these images: `base` [B, C] logits without the cache, `affinities` [B, S] to entries of the classes
        `owners` int64 [S] with `weights` [S] (None: all 1), `labels` int64 [B]. Computed in float32 on the CPU.

        Raises ValueError for a label or an owner that is no class of `base`.
        """
        classes = base.shape[1]
        for name, numbers in (("labels", labels), ("owners", owners)):
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < classes:
                wrong = f"{int(numbers.min())} to {int(numbers.max())}"
                raise ValueError(f"{name} are {wrong}; base has {classes} classes, so they must be 0 to {classes - 1}")
        owners, labels, base, affinities = (tensor.cpu() for tensor in (owners, labels, base, affinities))
        sorted_owners, order = owners.sort(stable=True)
        starts = torch.searchsorted(sorted_owners, torch.arange(classes + 1)).numpy()
        counted = torch.ones(len(owners)) if weights is None else weights.cpu().float()[order]
        settings = (starts, counted.numpy(), np.float32(self._betas), np.float64(self._alphas))
        images = WIDTH * max(1, _BLOCK_ELEMENTS // (WIDTH * max(1, len(owners))))
        found = []

        def worker() -> Callable[[int], None]:
            votes = np.empty(classes * WIDTH, np.float32)
            hits = np.zeros(self._hits.shape, np.int64)
            found.append(hits)

            def count(start: int) -> None:
                some = slice(start, start + images)
                sides = _by_column(affinities[some][:, order]), _by_column(base[some])
                count_hits(*sides, labels[some].contiguous().numpy(), *settings, votes, hits)

            return count

        share(range(0, len(labels), images), worker)
        self._hits += torch.from_numpy(np.sum(found, axis=0))
        self._images += len(labels)

    def best(self) -> Found:
        """The pair with the most right answers; among equals the first in the order beta, then alpha.

        Raises ValueError when no images were counted.
        """
        if not self._images:
            raise ValueError("a search needs images: add() was never called, or only without images")
        place = int(np.argmax(self._hits.numpy()))  # numpy promises the first
        beta, alpha = divmod(place, len(self._alphas))
        accuracy = int(self._hits[beta, alpha]) / self._images
        return Found(self._alphas[alpha], self._betas[beta], accuracy, self._hits.clone())


def _by_column(rows: Tensor) -> np.ndarray:
    """[B, S] -> float32 [S, W], W = B rounded up to sixteen."""
    turned = torch.nn.functional.pad(at_least_float32(rows).float(), (0, 0, 0, -len(rows) % WIDTH))
    return turned.T.contiguous().numpy()
