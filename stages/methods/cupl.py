"""CuPL: the whole image against the mean of the class's descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from .method import DescriptorMethod, Features, Texts

if TYPE_CHECKING:
    from torch import Tensor


class Cupl(DescriptorMethod):
    """logit scale x cosine of the whole image and the mean of a class's unit texts, rescaled to length one.

    Probabilities are softmax(logits). No views.
    """

    name: Literal["cupl"] = "cupl"

    source: ClassVar[str] = "Pratt et al. 2023, CuPL (arXiv 2209.03320); algorithms.md 4"
    version: ClassVar[int] = 1
    views: ClassVar[None] = None

    def logits(self, features: Features, texts: Texts) -> Tensor:
        """[B, C], within one logit scale of zero."""
        return texts.logit_scale * features.whole @ texts.mean.T
