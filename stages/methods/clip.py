"""CLIP: the whole image against the class's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prompts.phrasing import Form, phrase

from .method import ClassTemplate, Features, Method, Texts

if TYPE_CHECKING:
    from torch import Tensor


class Clip(Method):
    """logit scale x cosine of the whole image and one prompt with the class's name.

    Probabilities are softmax(logits). No views, no descriptors.
    """

    name: Literal["clip"] = "clip"
    template: ClassTemplate = Field(
        default="a photo of a {class}.", description="the prompt, with {class} for the name"
    )

    source: ClassVar[str] = "Radford et al. 2021 (arXiv 2103.00020); algorithms.md 1"
    version: ClassVar[int] = 1
    views: ClassVar[None] = None
    descriptors: ClassVar[None] = None

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """One prompt; descriptors are not read."""
        return [phrase(self.template, class_name)]

    def logits(self, features: Features, texts: Texts) -> Tensor:
        """[B, C], within one logit scale of zero."""
        return texts.logit_scale * features.whole @ texts.mean.T
