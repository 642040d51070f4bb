"""A cache of labelled vectors that vote for classes: Tip-Adapter's, and D&D's of crops that descriptors chose.

A vote is weight x exp(-beta (1 - affinity)); the logits of a cache method are those without it + alpha x votes
(algorithms.md 7.2 and 9). What the three ways to ask a cache of crops have in common is `Affinities`: one number for
each image and entry, whose class and weight are known. Votes, search and training read nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .pooling import text_counts
from .precision import at_least_float32

# Numbers of chosen crops, or of similarities, that are held at a time: 8 MB in float32.
_BLOCK_ELEMENTS = 2**21


@dataclass(frozen=True)
class Keys:
    """A cache's entries: `vectors` [S, d]; int64 `owners` [S], their classes; int64 `descriptors` [S], the number of
    the descriptor of that class that chose the crop. An entry that stands there twice counts twice."""

    vectors: Tensor
    owners: Tensor
    descriptors: Tensor


@dataclass(frozen=True)
class Affinities:
    """What images have in common with a cache: `values` [B, S'] cosines, `owners` int64 [S'] the classes that they
    speak for, `weights` [S'] how much they count."""

    values: Tensor
    owners: Tensor
    weights: Tensor


def class_votes(
    affinities: Tensor, owners: Tensor, classes: int, *, beta: float, weights: Tensor | None = None
) -> Tensor:
    """A_c = sum over the entries of class c of weight x exp(-beta (1 - affinity)) (algorithms.md 9).

    `affinities` [B, S], `owners` int64 [S] in any order, `weights` [S] (None: all 1) -> [B, classes], in float32 at
    least. A class without entries gets 0. Gradients flow through it.
    """
    values = at_least_float32(affinities)
    kernel = ((values - 1) * beta).exp()
    if weights is not None:
        kernel = kernel * weights.to(kernel)
    return kernel.new_zeros(len(kernel), classes).index_add(1, owners, kernel)


def choose_crops(crops: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """For each text the crop nearest to it, m*(n) = argmax_m X_m . D_n; the first of equals (algorithms.md 7.2).

    `crops` [M, d] or [B, M, d] and `texts` [N, d], unit rows -> crop numbers int64 [N] or [B, N], and their cosines,
    of the same shape. Memory beyond the result is a few million numbers, or N x M if that is more. Raises ValueError
    for an image without crops.
    """
    if crops.shape[-2] == 0:
        raise ValueError(f"crops {list(crops.shape)} have no rows; a descriptor needs at least one to choose from")
    if crops.dim() == 2:
        chosen, similarity = choose_crops(crops.unsqueeze(0), texts)
        return chosen[0], similarity[0]
    crops, texts = at_least_float32(crops), at_least_float32(texts)
    chosen = torch.empty(len(crops), len(texts), dtype=torch.int64, device=crops.device)
    similarity = crops.new_empty(chosen.shape)
    step = max(1, _BLOCK_ELEMENTS // max(1, crops.shape[1] * len(texts)))
    for start in range(0, len(crops), step):
        some = slice(start, start + step)
        similarity[some], chosen[some] = (crops[some] @ texts.T).max(dim=1)
    return chosen, similarity


def global_affinities(features: Tensor, keys: Keys, mask: Tensor) -> Affinities:
    """Whole images against every key: `features` [B, d] unit rows, `mask` bool [C, N] of the classes' descriptors ->
    [B, S], with weight 1 / N_c. Raises ValueError for a key of a descriptor that the mask leaves out."""
    values = at_least_float32(features) @ at_least_float32(keys.vectors).T
    return Affinities(values, keys.owners, _weights(keys, mask))


def all_affinities(crops: Tensor, keys: Keys, mask: Tensor) -> Affinities:
    """Every crop against every key: `crops` [B, M, d] unit rows, `mask` bool [C, N] -> [B, M x S], with weight
    1 / (M N_c). Raises ValueError for a key of a descriptor that the mask leaves out."""
    batch, count, _ = crops.shape
    values = at_least_float32(crops).flatten(0, 1) @ at_least_float32(keys.vectors).T
    return Affinities(values.view(batch, -1), keys.owners.repeat(count), _weights(keys, mask).repeat(count) / count)


def aligned_affinities(
    crops: Tensor, keys: Keys, texts: Tensor, mask: Tensor, chosen: Tensor | None = None
) -> Affinities:
    """The key of a descriptor against the crop that the same descriptor chooses here: q_cn . K_s (algorithms.md 7.2).

    `crops` [B, M, d], `texts` [C, N, d], unit rows, `mask` bool [C, N] -> [B, S], with weight 1 / N_c. q_cn is the crop
    of an image with the largest cosine to descriptor n of class c, the first of equals. Never are all B x C x N chosen
    crops in memory, nor in the backward pass; gradients flow to the keys. `chosen` int64
    [B, C x N] are the numbers of these crops, where `choose_crops` of all texts is known already.

    Raises ValueError for a key of a descriptor that the mask leaves out, and for images without crops.
    """
    weights = _weights(keys, mask)
    asked, groups = torch.unique(keys.owners * texts.shape[1] + keys.descriptors, return_inverse=True)
    chosen = choose_crops(crops, texts.flatten(0, 1)[asked])[0] if chosen is None else chosen[:, asked]
    return Affinities(chosen_products(crops, chosen, keys.vectors, groups), keys.owners, weights)


def _weights(keys: Keys, mask: Tensor) -> Tensor:
    """1 / N_c for each key."""
    counts = text_counts(mask)
    outside = ~mask[keys.owners, keys.descriptors]
    if outside.any():
        first = int(outside.nonzero()[0])
        place = f"descriptor {int(keys.descriptors[first])} of class number {int(keys.owners[first])}"
        raise ValueError(f"key {first} was chosen by {place}, which the mask leaves out; keys belong to real ones")
    return 1 / counts[keys.owners].float()


def chosen_products(crops: Tensor, chosen: Tensor, vectors: Tensor, groups: Tensor) -> Tensor:
    """crops[b, chosen[b, groups[s]]] . vectors[s] for all b and s.

    `crops` [B, M, d], `chosen` int64 [B, G], `vectors` [S, d], `groups` int64 [S] below G -> [B, S]. Gradients flow to
    the vectors alone.
    """
    crops, vectors = at_least_float32(crops), at_least_float32(vectors)
    if crops.device.type == "cpu" and crops.dtype == vectors.dtype == torch.float32:
        from .compiled_products import CompiledProducts

        return CompiledProducts.apply(crops, chosen, vectors, groups)
    return _torch_products(crops.detach(), chosen, vectors, groups)


def _torch_products(crops: Tensor, chosen: Tensor, vectors: Tensor, groups: Tensor) -> Tensor:
    """The same in torch, for other devices and precisions: a group's vectors share one product of matrices, and groups
    of like size go together, so little is padded."""
    batch, _, dim = crops.shape
    counts = torch.bincount(groups, minlength=chosen.shape[1])
    grouped = torch.argsort(groups, stable=True)
    starts = counts.cumsum(0) - counts
    by_size = torch.argsort(counts, descending=True, stable=True)[: int((counts > 0).sum())]
    image = torch.arange(batch, device=crops.device)

    def products(members: Tensor, crop: Tensor, vectors: Tensor) -> Tensor:
        return torch.bmm(crops[image, crop.T], vectors[members].transpose(1, 2))

    step = max(1, _BLOCK_ELEMENTS // max(1, batch * dim))
    values, places = [], [grouped[:0]]
    for start in range(0, len(by_size), step):
        some = by_size[start : start + step]
        along = torch.arange(int(counts[some[0]]), device=crops.device)
        inside = along < counts[some].unsqueeze(1)
        members = grouped[(starts[some].unsqueeze(1) + along).clamp(max=len(groups) - 1)]
        block = (members, chosen[:, some], vectors)
        if vectors.requires_grad:  # keeps the choice, and gathers the crops once more for the gradient
            found = checkpoint(products, *block, use_reentrant=False, preserve_rng_state=False)
        else:
            found = products(*block)
        values.append(found.transpose(0, 1)[:, inside])
        places.append(members[inside])
    if not values:
        return crops.new_zeros(batch, 0)
    back = torch.argsort(torch.cat(places))
    return torch.cat(values, dim=1).index_select(1, back)
