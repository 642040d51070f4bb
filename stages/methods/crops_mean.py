"""Crops averaged: the control that shows what transport adds to crops and descriptors (CLIP + D + R)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from .bases import CropMethod, DescriptorMethod, LinearMethod
from .explaining import Spoken, explain_means, number_rows
from .method import Features, Texts

if TYPE_CHECKING:
    from torch import Tensor


class CropsMean(LinearMethod, CropMethod, DescriptorMethod):
    """logit scale x cosine of the mean crop and the mean description.

    Rescaled (the default) it is `cupl` with the mean crop in place of the whole image. Not rescaled it is the
    mean of all crop x description cosines, which is what `dnd` becomes as epsilon grows, where both read the same
    descriptions: `dnd` reads the first nine, this one all, unless `max_descriptors` says otherwise. Probabilities
    are softmax(logits).
    """

    name: Literal["crops_mean"] = "crops_mean"
    renormalize: bool = Field(
        default=True,
        description="rescale both means to length one, which spares classes whose descriptions disagree",
    )

    source: ClassVar[str] = "CLIP+D+R of D&D (arXiv 2507.03458); algorithms.md 7.1"
    version: ClassVar[int] = 1

    def classifier(self, texts: Texts) -> Tensor:
        """The mean description of each class, [C, d]."""
        return texts.mean if self.renormalize else texts.average

    def image(self, features: Features) -> Tensor:
        """The mean crop of each image, [B, d]. Raises ValueError without raw crops."""
        from torch.nn.functional import normalize

        crops = self.raw_crops(features)
        mean = features.shared.once(("mean crop", crops.shape[1]), lambda: crops.mean(dim=1))
        return normalize(mean, dim=-1) if self.renormalize else mean

    def explain(self, features: Features, texts: Texts, classes: Sequence[int]) -> Spoken:
        """Every crop and description with equal weight: the parts of the cosine of the means."""
        import torch

        from .weighting import equal_weights

        (crops,), some = self.raw_crops(features), list(classes)
        weights = torch.full((len(crops),), 1 / len(crops))
        sides = (crops, weights, texts.vectors[some], equal_weights(texts.mask[some]))
        found = explain_means(*sides, texts.logit_scale, renormalize=self.renormalize)
        return Spoken(number_rows(raw=len(crops)), 0, *found, torch.zeros(len(some)))
