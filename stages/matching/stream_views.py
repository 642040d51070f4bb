"""The surest views of an image in one: TDA's form for augmented images (algorithms.md 10, step 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .precision import at_least_float32
from .stream_caches import entropy


@dataclass(frozen=True)
class Selected:
    """Means of an image's surest views: `features` [B, d], not unit rows; `logits` [B, C]; and of their mean
    `probabilities` [B, C] the `entropies` [B] in nats."""

    features: Tensor
    logits: Tensor
    entropies: Tensor
    probabilities: Tensor


def select_views(features: Tensor, logits: Tensor, share: float = 0.1) -> Selected:
    """The int(share x V) views of least entropy, one at least, in one: TDA's form with AugMix (algorithms.md 10.1).

    `features` [B, V, d] unit rows, `logits` [B, V, C] times the logit scale. Of equal views the first are taken.
    Raises ValueError for a share outside 0 to 1 and for images without views.
    """
    count = features.shape[1]
    if not 0 < share <= 1 or not count:
        raise ValueError(f"a share of {share} of {count} views; it must be above 0 and at most 1, of one view at least")
    features, logits = at_least_float32(features), at_least_float32(logits)
    surest = entropy(logits).argsort(dim=1, stable=True)[:, : max(1, int(share * count))].unsqueeze(-1)
    chosen = logits.take_along_dim(surest, dim=1)
    probabilities = chosen.softmax(dim=-1).mean(dim=1)
    # Of the logarithm of the mean, which is a sum of exponentials that none of them can leave.
    log_mean = chosen.log_softmax(dim=-1).logsumexp(dim=1) - math.log(surest.shape[1])
    return Selected(
        features.take_along_dim(surest, dim=1).mean(dim=1),
        chosen.mean(dim=1),
        -(log_mean.exp() * log_mean).sum(dim=-1),
        probabilities,
    )
