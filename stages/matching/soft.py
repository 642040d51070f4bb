"""Soft matching: a crop spreads one vote over all descriptions of all classes (ABS, algorithms.md 8.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from .pooling import text_counts
from .precision import at_least_float32

# Similarities held at a time: about what stays in a core's cache, and what fills an accelerator.
_BLOCK_ELEMENTS = {"cpu": 2**17, "cuda": 2**26}


def soft_match(
    features: Tensor,
    texts: Tensor,
    mask: Tensor,
    *,
    temperature: float = 0.03,
    block: int | None = None,
) -> Tensor:
    """l_c = sum_i sum_j p_icj s_icj; s is cosine / temperature, p_i the softmax of s over all (c, j) jointly.

    `features` [B, F, d] and `texts` [C, M, d] unit rows, `mask` bool [C, M] (False: padding) -> [B, C], each
    row within F / temperature of zero. A crop that is sure of one class gives it nearly all of its vote; one
    that is not spreads it thinly over all (ABS, eq. 8-10; algorithms.md 8.4).

    When classes have different numbers of texts, -log M_c is added inside the softmax, so that every class
    starts with the same mass; equal numbers follow the published rule, where the term would cancel.

    A text with a negative cosine counts against its class in proportion to its share p, so a less likely text
    can cost less than a likelier one. With CLIP, whose cosines of images and texts are nearly all positive,
    this does not arise; with other encoders p is nearly zero there unless all of a crop's cosines are
    negative.

    `block` is the number of classes taken at a time; None chooses it so that a block's similarities stay in
    cache. Memory is F x C an image, never F x C x M, and the result is exact (an online softmax).

    Raises ValueError for a temperature <= 0 and for a class without texts.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0, e.g. 0.03")
    features, texts = at_least_float32(features), at_least_float32(texts)
    batch, rows, dim = features.shape
    class_count, text_count, _ = texts.shape
    prior = _log_prior(mask, features.dtype)
    budget = _BLOCK_ELEMENTS.get(features.device.type, _BLOCK_ELEMENTS["cuda"])
    # As many images at a time as leave room for sixteen classes a block: long products without large buffers.
    images = max(1, budget // max(1, rows * text_count * 16))
    logits = features.new_empty(batch, class_count)
    for start in range(0, batch, images):
        some = features[start : start + images] / temperature
        classes = block or max(1, budget // max(1, some.shape[0] * rows * text_count))
        votes = _votes(some.reshape(-1, dim), texts, prior, classes)
        logits[start : start + images] = votes.view(-1, rows, class_count).sum(dim=1)
    return logits


def _log_prior(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What is added to the similarities inside the softmax, [C, M]; None when every class is full."""
    counts = text_counts(mask)
    if (counts == mask.shape[1]).all():
        return None
    prior = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    if (counts != counts[0]).any():
        prior -= counts.to(dtype).log().unsqueeze(1)
    return prior.masked_fill(~mask, -torch.inf)


def _votes(rows: Tensor, texts: Tensor, prior: Tensor | None, block: int) -> Tensor:
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
        similarity = rows @ _present(texts, prior, some).flatten(0, 1).T
        logit = similarity if prior is None else similarity + prior[some].flatten()
        previous, largest = largest, torch.maximum(largest, logit.amax(dim=1, keepdim=True))
        share = (logit - largest).exp_()
        total = total * (previous - largest).exp() + share.sum(dim=1, keepdim=True)
        votes[:, some] = share.mul_(similarity).unflatten(1, (-1, texts.shape[1])).sum(dim=-1)
        read.append((some, largest))
    for some, reference in read:
        votes[:, some] *= (reference - largest).exp() / total
    return votes


def _present(texts: Tensor, prior: Tensor | None, some: slice) -> Tensor:
    """A block of texts with zeros for padding, whose share of zero must not meet an inf or nan."""
    if prior is None:
        return texts[some]
    return texts[some].masked_fill((prior[some] == -torch.inf).unsqueeze(-1), 0.0)
