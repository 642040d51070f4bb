"""Crops averaged: the control that shows what transport adds to crops and descriptors (CLIP + D + R)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from .method import DescriptorMethod, Features, Texts

if TYPE_CHECKING:
    from torch import Tensor


class CropsMean(DescriptorMethod):
    """logit scale x cosine of the mean crop and the mean description.

    Rescaled (the default) it is `cupl` with the mean crop in place of the whole image. Not rescaled it is the
    mean of all crop x description cosines, which is what `dnd` becomes as epsilon grows. Probabilities are
    softmax(logits).
    """

    name: Literal["crops_mean"] = "crops_mean"
    needs_views: ClassVar[bool] = True
    views: str | None = Field(default=None, description="name of the view set; default: the job's only one")
    renormalize: bool = Field(
        default=True,
        description="rescale both means to length one, which spares classes whose descriptions disagree",
    )

    source: ClassVar[str] = "CLIP+D+R of D&D (arXiv 2507.03458); algorithms.md 7.1"
    version: ClassVar[int] = 1

    def logits(self, features: Features, texts: Texts) -> Tensor:
        """[B, C], within one logit scale of zero. Raises ValueError without raw crops."""
        from stages.matching.pooling import mean_cosine, mean_crop

        crops = self.raw_crops(features)
        if self.renormalize:
            return texts.logit_scale * mean_crop(crops) @ texts.mean.T
        return texts.logit_scale * mean_cosine(crops, texts.vectors, texts.mask)
