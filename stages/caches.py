"""The cache of a few-shot variant, gathered from stored features, and what `tune` made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stages.build_caches import shot_keys
from stages.methods.few_shot import Cache
from stages.readings import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from stages.matching.cache import Keys

IMAGES_AT_ONCE = 200


def load_cache(reading: Reading) -> Cache:
    """Keys, learned ones where the method trains them, with the alpha and beta that `tune` chose."""
    import torch

    from storage.schemas import to_numpy
    from storage.shards import ShardTable

    keys = load_keys(reading)
    fitted = ShardTable(reading.support.fitted).read(keys=["all"])
    if reading.method.trained:
        learned = fitted["keys"].combine_chunks().flatten()
        keys = replace(keys, vectors=torch.from_numpy(to_numpy(learned, (-1,)).copy()))
    return Cache(keys, fitted["alpha"][0].as_py(), fitted["beta"][0].as_py())


def load_keys(reading: Reading) -> Keys:
    """The support set's keys, by class and shot, and of a shot by description.

    Of crops that descriptions chose [S, d] with S = shots x descriptions; else one a shot: the mean of its stored
    vectors, each with its norm, rescaled to length one (algorithms.md 9).
    """
    import torch

    from stages.matching.cache import Keys

    support, place = reading.support, {name: number for number, name in enumerate(reading.prompts)}
    owners = torch.tensor([place[name] for name in support.shots["class"].to_pylist()])
    if support.chosen is None:
        return Keys(_mean_versions(reading), owners, torch.zeros_like(owners))
    return _chosen_crops(reading, owners)


def _mean_versions(reading: Reading) -> Tensor:
    import torch

    from storage.schemas import to_numpy
    from storage.shards import ShardTable

    table, images, means = ShardTable(reading.support.features), reading.support.shots["key"].to_pylist(), []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        rows = table.read(keys=images[start : start + IMAGES_AT_ONCE], columns=["vectors", "norms"])
        norms = torch.from_numpy(to_numpy(rows["norms"], (-1,)).copy())
        vectors = torch.from_numpy(to_numpy(rows["vectors"], (norms.shape[1], -1)).astype("float32"))
        means.append(torch.nn.functional.normalize((vectors * norms.unsqueeze(-1)).mean(1), dim=-1))
    return torch.cat(means)


def _chosen_crops(reading: Reading, owners: Tensor) -> Keys:
    import torch

    from stages.matching.cache import Keys
    from stages.predictions import load_crops
    from storage.shards import ShardTable

    support = reading.support
    chosen = ShardTable(support.chosen).read(keys=shot_keys(support.shots), columns=["crops"])["crops"].to_pylist()
    table, images = ShardTable(support.features), support.shots["key"].to_pylist()
    vectors, numbers, shots = [], [], []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        crops = load_crops(table, images[start : start + IMAGES_AT_ONCE])
        for shot, of_image in enumerate(crops, start):
            kept = _kept(chosen[shot], reading.method.dedupe)
            vectors.append(of_image[[chosen[shot][number] for number in kept]])
            numbers += kept
            shots += [shot] * len(kept)
    return Keys(torch.cat(vectors), owners[torch.tensor(shots)], torch.tensor(numbers))


def _kept(crops: list[int], dedupe: bool) -> list[int]:
    """Numbers of the descriptions whose crop is kept: all, or the first that chose each crop."""
    if not dedupe:
        return list(range(len(crops)))
    first: dict[int, int] = {}
    for number, crop in enumerate(crops):
        first.setdefault(crop, number)
    return list(first.values())
