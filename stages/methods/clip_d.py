"""CLIP-D: the whole image against descriptors, each said with the class's name (classification by description)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from .bases import DescriptorMethod, DescriptorTemplate, LinearMethod
from .method import Texts

if TYPE_CHECKING:
    from torch import Tensor


class ClipD(LinearMethod, DescriptorMethod):
    """logit scale x (1 / M_c) sum_j x . t_cj: the mean of the cosines of image and described prompts.

    The mean vector keeps its length, which is short where a class's descriptors disagree. Rescaled to length one
    it spares such classes, and other classes may win. Probabilities are softmax(logits). No views.
    """

    name: Literal["clip_d"] = "clip_d"
    template: DescriptorTemplate = Field(
        default="{class}, {which}",
        description="completes an attribute by {class}, {descriptor}, {which} (the published code ends it with a "
        "full stop on ImageNet alone); sentences stay as they are",
    )
    renormalize: bool = Field(
        default=False, description="rescale the mean to length one, which spares classes whose descriptors disagree"
    )

    source: ClassVar[str] = "Menon and Vondrick 2023 (arXiv 2210.07183); algorithms.md 3"
    version: ClassVar[int] = 1
    views: ClassVar[None] = None

    def classifier(self, texts: Texts) -> Tensor:
        """The mean of a class's prompts, of length one where that is asked for, [C, d]."""
        return texts.mean if self.renormalize else texts.average


class ClipDWca(ClipD):
    """CLIP-D as the tables of WCA and ABS have it: the mean prompt is rescaled to length one."""

    name: Literal["clip_d_wca"] = "clip_d_wca"
    renormalize: bool = Field(
        default=True, description="rescale the mean to length one, which spares classes whose descriptors disagree"
    )

    source: ClassVar[str] = "CLIP-D (arXiv 2210.07183) as in WCA (arXiv 2406.02915); algorithms.md 3"
