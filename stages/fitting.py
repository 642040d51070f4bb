"""Alpha and beta searched on validation images, and keys learned from shots: what `tune` does in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stages.predictions import load_features
from stages.readings import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from stages.matching.cache import Keys
    from stages.methods.method import Features
    from stages.tune import Fit

IMAGES_AT_ONCE = 256


def search_settings(fit: Fit, prepared: Any, keys: Keys) -> dict[str, Any]:
    """The alpha and beta that are right most often on the validation images, of 20 x 200 pairs (algorithms.md 9).

    `accuracy` as a fraction, `hits` of all pairs, beta by beta.
    """
    import torch

    from stages.matching.cache_search import CacheSearch, grid

    method = fit.reading.method
    search = CacheSearch(*grid(method.max_alpha, method.max_beta))
    with torch.inference_mode():
        for features, labels in labelled_features(fit.reading, fit.validation):
            near = method.affinities(features, prepared, keys)
            search.add(method.zero_shot(features, prepared), near.values, near.owners, labels, near.weights)
    best = search.best()
    hits = best.hits.flatten().tolist()
    return {"alpha": best.alpha, "beta": best.beta, "accuracy": best.accuracy, "hits": hits}


def labelled_features(reading: Reading, images: pa.Table) -> Iterator[tuple[Features, Tensor]]:
    """Features and class numbers of labelled images (columns key, class), some hundred at a time."""
    import torch

    from storage.shards import ShardTable

    tables = {folder: ShardTable(folder) for folder in (reading.whole, reading.view) if folder is not None}
    place = {name: number for number, name in enumerate(reading.prompts)}
    for start in range(0, len(images), IMAGES_AT_ONCE):
        part = images.slice(start, IMAGES_AT_ONCE)
        labels = torch.tensor([place[name] for name in part["class"].to_pylist()])
        yield load_features([reading], part["key"].to_pylist(), tables), labels
