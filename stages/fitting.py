"""Alpha and beta searched on validation images, and keys learned from shots: what `tune` does in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
MICRO_BATCH = 64
"""Training images whose affinities are held at a time."""


def search_settings(fit: Fit, prepared: Any, keys: Keys) -> dict[str, Any]:
    """The alpha and beta that are right most often on the validation images, of 20 x 200 pairs (algorithms.md 9).

    `accuracy` as a fraction, `hits` of all pairs, beta by beta.
    """
    import torch

    from stages.matching.cache_search import CacheSearch, grid

    method = fit.reading.method
    search = CacheSearch(*grid(method.max_alpha, method.max_beta))
    with torch.inference_mode():
        for features, labels in labelled_features(fit.reading, fit.validation, _at_once(fit, keys)):
            near = method.affinities(features, prepared, keys)
            search.add(method.zero_shot(features, prepared), near.values, near.owners, labels, near.weights)
    best = search.best()
    hits = best.hits.flatten().tolist()
    return {"alpha": best.alpha, "beta": best.beta, "accuracy": best.accuracy, "hits": hits}


def learn_keys(fit: Fit, prepared: Any, keys: Keys) -> tuple[Keys, list[float]]:
    """Keys trained on the shots, and the accuracy of every epoch's on the validation images (algorithms.md 9).

    Those of the best epoch are taken, or of the last where there are no such images.
    """
    import torch

    from stages.matching.cache_training import TrainingSettings, train_keys

    method, queries = fit.reading.method, _Queries(fit.reading, prepared)
    epochs: list[float] = []
    validation = _Validation(fit, prepared, keys) if fit.validation is not None else None

    def after_epoch(vectors: Tensor) -> float:
        epochs.append(validation.accuracy(vectors))
        return epochs[-1]

    vectors = train_keys(
        keys.vectors,
        lambda rows, vectors: method.affinities(queries.features(rows), prepared, replace(keys, vectors=vectors)),
        queries.rows,
        queries.base,
        queries.labels,
        alpha=method.alpha,
        beta=method.beta,
        settings=TrainingSettings(
            epochs=method.epochs, learning_rate=method.learning_rate, seed=method.only_seed(), micro_batch=MICRO_BATCH
        ),
        after_epoch=None if validation is None else after_epoch,
    )
    return replace(keys, vectors=vectors.to(torch.float32)), epochs


class _Queries:
    """The shots as training images, in V versions where these were encoded: `rows` int64 [V, n] are their numbers,
    `base` [V, n, C] their logits without the cache, `labels` int64 [n]."""

    def __init__(self, reading: Reading, prepared: Any):
        import torch

        from stages.methods.method import Features
        from stages.predictions import load_crops
        from storage.shards import ShardTable

        method, shots = reading.method, reading.support.shots
        parts = list(labelled_features(reading, shots))
        self.labels = torch.cat([labels for _, labels in parts])
        whole = torch.cat([features.whole for features, _ in parts]).unsqueeze(1)
        raw = torch.cat([features.raw for features, _ in parts]) if parts[0][0].raw is not None else None
        if method.augmentations is not None:
            whole = load_crops(ShardTable(reading.support.features), shots["key"].to_pylist())
        count, versions = whole.shape[:2]
        self.seen = Features(whole.transpose(0, 1).flatten(0, 1), raw)
        self.rows = torch.arange(versions * count).view(versions, count)
        with torch.inference_mode():
            found = [
                method.zero_shot(self.features(some), prepared) for some in self.rows.flatten().split(IMAGES_AT_ONCE)
            ]
        self.base = torch.cat(found).view(versions, count, -1)

    def features(self, rows: Tensor) -> Features:
        from stages.methods.method import Features

        return Features(self.seen.whole[rows], None if self.seen.raw is None else self.seen.raw[rows])


class _Validation:
    """The validation images, whose logits without the cache are worked out once."""

    def __init__(self, fit: Fit, prepared: Any, keys: Keys):
        import torch

        self.fit, self.prepared, self.keys = fit, prepared, keys
        with torch.inference_mode():
            of = labelled_features(fit.reading, fit.validation, _at_once(fit, keys))
            self.base = [fit.reading.method.zero_shot(features, prepared) for features, _ in of]

    def accuracy(self, vectors: Tensor) -> float:
        """Of these keys, with the alpha and beta that the method begins with."""
        import torch

        from stages.matching.cache import class_votes

        method, right = self.fit.reading.method, 0
        keys = replace(self.keys, vectors=vectors)
        with torch.inference_mode():
            of = labelled_features(self.fit.reading, self.fit.validation, _at_once(self.fit, keys))
            for base, (features, labels) in zip(self.base, of, strict=True):
                near = method.affinities(features, self.prepared, keys)
                votes = class_votes(near.values, near.owners, base.shape[1], beta=method.beta, weights=near.weights)
                right += int(((base + method.alpha * votes).argmax(1) == labels).sum())
        return right / len(self.fit.validation)


def _at_once(fit: Fit, keys: Keys) -> int:
    return min(IMAGES_AT_ONCE, fit.reading.method.images_at_once(len(keys.owners), fit.reading.crops))


def labelled_features(
    reading: Reading, images: pa.Table, at_once: int = IMAGES_AT_ONCE
) -> Iterator[tuple[Features, Tensor]]:
    """Features and class numbers of labelled images (columns key, class), some at a time."""
    import torch

    from storage.shards import ShardTable

    tables = {folder: ShardTable(folder) for folder in (reading.whole, reading.view) if folder is not None}
    place = {name: number for number, name in enumerate(reading.prompts)}
    for start in range(0, len(images), at_once):
        part = images.slice(start, at_once)
        labels = torch.tensor([place[name] for name in part["class"].to_pylist()])
        yield load_features([reading], part["key"].to_pylist(), tables), labels
