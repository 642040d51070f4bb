"""CLIP: the whole image against the class's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from prompts.phrasing import Form, phrase

from .bases import ClassTemplate, LinearMethod


class Clip(LinearMethod):
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
