"""How much quicker adaptation is than the loops that it replaces; figures of `python -m benchmarks.query`.

Both sides are float32 and on all cores.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.matching.cache_search import CacheSearch, Found, grid
from stages.matching.stream import iter_stream
from stages.matching.stream_caches import StreamSettings

DIM, TURNS = 512, 3
CLASSES, SHOTS, IMAGES = 100, 16, 2_000
MAX_ALPHA, MAX_BETA = 3.0, 7.0
PAIRS = 6
STREAM_CLASSES, STREAM, LOOP = 1_000, 50_000, 1_000
MARGIN = 1e-4


def search_speedup(images: int = IMAGES, classes: int = CLASSES) -> float:
    """Seconds of recomputing the affinities for each of 200 x 20 pairs, over ours; asserts the same optimum.

    Every pair costs the loop the same, so a few are timed and scaled, in turns with ours; the figure is the median of
    the turns. Both find the same best pair of a smaller grid.
    """
    owners = torch.arange(classes).repeat_interleave(SHOTS)
    labels = torch.randint(classes, (images,), generator=torch.Generator().manual_seed(1))
    features, keys, texts = _clusters(classes, (labels, 2.5), (owners, 2.0), (torch.arange(classes), 3.0))
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
        _, seconds = _timed(lambda: ours(alphas, betas))
        _, their_seconds = _timed(lambda: loop(alphas[:PAIRS], betas[:1]))
        ratios.append(their_seconds / PAIRS * len(alphas) * len(betas) / seconds)
    mine, theirs = ours(*few), loop(*few)
    assert (mine.alpha, mine.beta) == theirs[:2], f"best of a small grid: {mine.alpha, mine.beta}, the loop's {theirs}"
    return round(statistics.median(ratios), 1)


def tda_speedup(count: int = STREAM, classes: int = STREAM_CLASSES, loop: int = LOOP) -> float:
    """Seconds a sample of the loop with dict caches over ours; asserts the same predictions.

    Ours goes over all samples, the loop over the first ones, where the caches are far from full: a sample costs it the
    more the fuller they are, and so the ratio is an understatement.
    """
    labels = torch.randint(classes, (count,), generator=torch.Generator().manual_seed(1))
    features, texts = _clusters(classes, (labels, 3.0), (torch.arange(classes), 1.5))
    logits = 100 * features @ texts.T
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    settings, first = StreamSettings(), order[:loop]

    def ours() -> Tensor:
        """Predictions alone, as a job keeps them."""
        found = torch.empty(count, dtype=torch.int64)
        for samples, adapted in iter_stream(features, logits, order, settings):
            found[samples] = adapted.argmax(dim=1)
        return found

    _tda_loop(features, logits, first[:20], settings)
    predicted, seconds = _timed(ours)
    adapted, their_seconds = _timed(lambda: _tda_loop(features, logits, first, settings))
    best = adapted.topk(2, dim=1)
    clear = best.values[:, 0] - best.values[:, 1] >= MARGIN
    wrong = int((predicted[first] != best.indices[:, 0])[clear].sum())
    assert not wrong, f"{wrong} of {loop} predictions differ from the loop's by more than a margin of {MARGIN}"
    return round(their_seconds / loop / (seconds / count), 1)


def _tda_loop(features: Tensor, logits: Tensor, order: Tensor, settings: StreamSettings) -> Tensor:
    """TDA as it is usually written: dicts of lists by class, put together anew for every sample; adapted logits."""
    classes = logits.shape[1]
    positive: dict[int, list] = {}
    negative: dict[int, list] = {}
    adapted = []
    for sample in order.tolist():
        feature, own = features[sample : sample + 1], logits[sample : sample + 1]
        probabilities = own.softmax(dim=1)
        entropy = float(-(probabilities * own.log_softmax(dim=1)).sum())
        predicted = int(own.argmax())
        _enter(positive, predicted, (feature, entropy, None), settings.positive_capacity)
        if settings.entropy_bounds[0] < entropy / math.log2(classes) < settings.entropy_bounds[1]:
            _enter(negative, predicted, (feature, entropy, probabilities), settings.negative_capacity)
        keys = torch.cat([item[0] for items in positive.values() for item in items])
        owners = torch.tensor([c for c, items in positive.items() for _ in items])
        affinity = feature @ keys.T
        kernel = (-settings.positive_beta * (1 - affinity)).exp()
        final = own + settings.positive_alpha * kernel @ F.one_hot(owners, classes).float()
        if negative:
            keys = torch.cat([item[0] for items in negative.values() for item in items])
            shares = torch.cat([item[2] for items in negative.values() for item in items])
            mask = (settings.mask_bounds[0] < shares) & (shares < settings.mask_bounds[1])
            kernel = (-settings.negative_beta * (1 - feature @ keys.T)).exp()
            final = final - settings.negative_alpha * kernel @ mask.float()
        adapted.append(final)
    return torch.cat(adapted)


def _enter(cache: dict[int, list], predicted: int, item: tuple, capacity: int) -> None:
    items = cache.setdefault(predicted, [])
    if len(items) < capacity:
        items.append(item)
    elif item[1] < items[-1][1]:
        items[-1] = item
    items.sort(key=lambda kept: kept[1])


def _clusters(classes: int, *groups: tuple[Tensor, float]) -> list[Tensor]:
    """Unit rows around a centre a class, for each group of labels as far away as its noise says."""
    draw = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(classes, DIM, generator=draw), dim=1)
    return [
        F.normalize(centres[labels] + noise * torch.randn(len(labels), DIM, generator=draw) / DIM**0.5, dim=1)
        for labels, noise in groups
    ]


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start
