"""Soft matching: a crop spreads one vote over all descriptions of all classes (ABS, algorithms.md 8.4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .pooling import text_counts
from .precision import at_least_float32

Prior = Literal["auto", "none", "equal"]

# Similarities that torch holds at a time: about what stays in a core's cache, and what fills an accelerator.
_BLOCK_ELEMENTS = {"cpu": 2**17, "cuda": 2**26}


@torch.no_grad()
def soft_match(
    features: Tensor,
    texts: Tensor,
    mask: Tensor,
    *,
    temperature: float = 0.03,
    shift: float = 0.0,
    prior: Prior = "auto",
) -> Tensor:
    """l_c = sum_i sum_j p_icj s_icj; s is cosine / temperature, p_i the softmax of s over all (c, j) jointly.

    `features` [B, F, d] and `texts` [C, M, d] unit rows, `mask` bool [C, M] (False: padding) -> [B, C], each
    row within F (1 + |shift|) / temperature of zero. A crop that is sure of one class gives it nearly all of its
    vote; one that is not spreads it thinly over all (ABS, eq. 8-10; algorithms.md 8.4). Rows vote independently:
    the logits of two sets of rows are the sum of their logits.

    `prior` says whether -log M_c is added inside the softmax, so that every class starts with the same mass.
    "auto": when classes have different numbers of texts; equal numbers follow the published rule, where the term
    would cancel. "equal": always, which comes to the same. "none": never; a class with more texts has more mass.

    A text with a negative cosine counts against its class in proportion to its share p, so a less likely text
    can cost less than a likelier one. With CLIP, whose cosines of images and texts are nearly all positive,
    this does not arise; with other encoders p is nearly zero there unless all of a crop's cosines are
    negative. `shift` is added to the cosine where it multiplies its share (never inside the softmax): 1 makes
    every vote positive.

    Memory beyond the result is F x C an image for a few images at a time, and blocks of similarities that stay in
    cache; never F x C x M. The result is exact (an online softmax). No gradients flow through it.

    Raises ValueError for a temperature <= 0, an unknown prior, features without rows, and a class without texts.
    """
    _check_temperature(temperature)
    if features.shape[1] == 0:
        raise ValueError(f"features {list(features.shape)} have no rows; every image needs at least one that votes")
    features, texts = at_least_float32(features), at_least_float32(texts)
    weights = _log_prior(mask, prior).to(features)
    if features.device.type == "cpu" and features.dtype == texts.dtype == torch.float32:
        from .compiled_soft import compiled_votes

        return compiled_votes(features, texts, weights, temperature=temperature, shift=shift)
    return _torch_votes(features, texts, weights, temperature, shift)


@torch.no_grad()
def soft_shares(
    features: Tensor, texts: Tensor, mask: Tensor, *, temperature: float = 0.03, prior: Prior = "auto"
) -> Tensor:
    """The shares p_icj that `soft_match` multiplies similarities by, all of them in memory.

    `features` [B, F, d], `texts` [C, M, d], `mask` bool [C, M] -> [B, F, C, M] >= 0; those of a feature row sum to 1,
    padding is 0. Then `soft_match` is the sum over i and j of p x (cosine + shift) / temperature (ABS, eq. 8-10). For
    one image at a time, whose votes somebody wants to see: `soft_match` never holds them.

    Raises ValueError for a temperature <= 0, an unknown prior and a class without texts.
    """
    _check_temperature(temperature)
    features, texts = at_least_float32(features), at_least_float32(texts)
    present = texts.masked_fill(~mask.unsqueeze(-1), 0.0)
    logit = torch.einsum("bfd,cmd->bfcm", features / temperature, present) + _log_prior(mask, prior).to(features)
    return logit.flatten(2).softmax(dim=-1).view_as(logit)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:  # nor is a nan
        raise ValueError(f"temperature is {temperature}; it must be above 0, e.g. 0.03")


def _log_prior(mask: Tensor, prior: Prior) -> Tensor:
    """What is added to the similarities inside the softmax, float64 [C, M]: -inf for padding."""
    counts = text_counts(mask).double()
    if prior == "none" or (prior == "auto" and (counts == counts[0]).all()):
        mass = torch.zeros_like(counts)
    elif prior in ("auto", "equal"):
        mass = -counts.log()
    else:
        raise ValueError(f"prior is {prior!r}; it must be 'auto', 'none' or 'equal'")
    return mass.unsqueeze(1).expand(mask.shape).masked_fill(~mask, -torch.inf)


def _torch_votes(features: Tensor, texts: Tensor, prior: Tensor, temperature: float, shift: float) -> Tensor:
    """The same in torch, for other devices and precisions."""
    batch, rows, dim = features.shape
    class_count, text_count, _ = texts.shape
    budget = _BLOCK_ELEMENTS.get(features.device.type, _BLOCK_ELEMENTS["cuda"])
    # As many images at a time as leave room for sixteen classes a block: long products without large buffers.
    images = max(1, budget // max(1, rows * text_count * 16))
    logits = features.new_empty(batch, class_count)
    for start in range(0, batch, images):
        some = features[start : start + images] / temperature
        classes = max(1, budget // max(1, some.shape[0] * rows * text_count))
        votes = _votes(some.reshape(-1, dim), texts, prior, shift / temperature, classes)
        logits[start : start + images] = votes.view(-1, rows, class_count).sum(dim=1)
    return logits


def _votes(rows: Tensor, texts: Tensor, prior: Tensor, shift: float, block: int) -> Tensor:
    """Each crop's contribution to each class: `rows` [R, d] = features / temperature -> [R, C].

    Numerators are kept relative to the largest logit known when their block was read, and brought to the
    final one at the end, which touches each of them once.
    """
    class_count = texts.shape[0]
    votes = rows.new_empty(rows.shape[0], class_count)
    largest = rows.new_full((rows.shape[0], 1), -torch.inf)
    total = rows.new_zeros(rows.shape[0], 1)
    read: list[tuple[slice, Tensor]] = []
    for start in range(0, class_count, block):
        some = slice(start, start + block)
        # Zeros for padding, whose share of zero must not meet an inf or nan.
        present = texts[some].masked_fill((prior[some] == -torch.inf).unsqueeze(-1), 0.0)
        similarity = rows @ present.flatten(0, 1).T
        logit = similarity + prior[some].flatten()
        previous, largest = largest, torch.maximum(largest, logit.amax(dim=1, keepdim=True))
        share = logit.sub_(largest).exp_()
        total = total * (previous - largest).exp() + share.sum(dim=1, keepdim=True)
        votes[:, some] = share.mul_(similarity.add_(shift)).unflatten(1, (-1, texts.shape[1])).sum(dim=-1)
        read.append((some, largest))
    for some, reference in read:
        votes[:, some] *= (reference - largest).exp() / total
    return votes
