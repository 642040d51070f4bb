"""How much quicker adaptation is than the loops that it replaces; figures of `python -m benchmarks.query`.

Both sides are float32, on all cores, and take turns; a figure is the median of the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.matching.cache_search import CacheSearch, Found, grid

CLASSES, SHOTS, IMAGES, DIM = 100, 16, 2_000, 512
MAX_ALPHA, MAX_BETA = 3.0, 7.0
PAIRS, TURNS = 6, 3


def search_speedup(images: int = IMAGES, classes: int = CLASSES) -> float:
    """Seconds of recomputing the affinities for each of 200 x 20 pairs, over ours; asserts the same optimum.

    Every pair costs the loop the same, so a few are timed and scaled; both find the same best pair of a smaller grid.
    """
    features, keys, texts, labels = _support(images, classes)
    owners = torch.arange(classes).repeat_interleave(SHOTS)
    base, one_hot = 100 * features @ texts.T, F.one_hot(owners, classes).float()
    alphas, betas = grid(MAX_ALPHA, MAX_BETA)

    def ours(alphas: list[float], betas: list[float]) -> Found:
        search = CacheSearch(alphas, betas)
        search.add(base, features @ keys.T, owners, labels)
        return search.best()

    def loop(alphas: list[float], betas: list[float]) -> tuple[float, float, float]:
        best, found = -1.0, (0.0, 0.0)
        for beta in betas:
            for alpha in alphas:
                votes = (-beta * (1 - features @ keys.T)).exp() @ one_hot
                accuracy = float(((base + alpha * votes).argmax(dim=1) == labels).float().mean())
                if accuracy > best:
                    best, found = accuracy, (alpha, beta)
        return *found, best

    few = alphas[::5], betas[::40]
    ratios = []
    for _ in range(TURNS):
        mine, seconds = _timed(lambda: ours(alphas, betas))
        _, their_seconds = _timed(lambda: loop(alphas[:PAIRS], betas[:1]))
        ratios.append(their_seconds / PAIRS * len(alphas) * len(betas) / seconds)
    mine, theirs = ours(*few), loop(*few)
    assert (mine.alpha, mine.beta) == theirs[:2], f"best of a small grid: {mine.alpha, mine.beta}, the loop's {theirs}"
    return round(statistics.median(ratios), 1)


def _support(images: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, keys, texts and labels: clusters around a centre a class, and texts that know it roughly."""
    draw = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(classes, DIM, generator=draw), dim=1)

    def near(labels: Tensor, noise: float) -> Tensor:
        spread = noise * torch.randn(len(labels), DIM, generator=draw) / DIM**0.5
        return F.normalize(centres[labels] + spread, dim=1)

    labels = torch.randint(classes, (images,), generator=draw)
    return (
        near(labels, 2.5),
        near(torch.arange(classes).repeat_interleave(SHOTS), 2.0),
        near(torch.arange(classes), 3.0),
        labels,
    )


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start
