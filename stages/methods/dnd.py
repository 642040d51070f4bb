"""D&D: crops transported to descriptions (decomposition and description)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prompts.phrasing import Form, phrase

from .method import ClassTemplate, DescriptorMethod, Features, Texts

if TYPE_CHECKING:
    from torch import Tensor


class Dnd(DescriptorMethod):
    """logit scale x (1 - Sinkhorn EMD) between the image's crops and the class's descriptions.

    Reconstructed from a summary of the paper: neither its full text nor code was at hand. The summary gives
    nine crops, nine descriptions, and EMD by Sinkhorn; epsilon, iterations, equal weights and the template
    agree with three published classifiers by optimal transport, and every one of them is a setting here.
    Probabilities are softmax(logits).
    """

    name: Literal["dnd"] = "dnd"
    needs_views: ClassVar[bool] = True
    views: str | None = Field(default=None, description="name of the view set; default: the job's only one")
    epsilon: float = Field(
        default=0.1,
        ge=1e-3,
        le=1e3,
        description="entropy of the plan, in cosine units; large: the plain mean",
    )
    iterations: int = Field(default=20, ge=1, le=10_000, description="Sinkhorn steps; a smaller epsilon needs more")
    include_global: bool = Field(default=False, description="count the whole image as one more crop")
    global_weight: float = Field(
        default=0.0,
        ge=0.0,
        le=100.0,
        description="weight of the whole image's cosine with `label_template`, added to the score; 0: none",
    )
    label_template: ClassTemplate = Field(
        default="a photo of a {class}.", description="the prompt that `global_weight` weighs"
    )

    source: ClassVar[str] = "D&D (arXiv 2507.03458), reconstructed; algorithms.md 7.1"
    version: ClassVar[int] = 1

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """One prompt a description; before them the label's own when `global_weight` is above 0."""
        described = super().prompts(class_name, descriptors, form)
        return [phrase(self.label_template, class_name), *described] if self.global_weight else described

    def logits(self, features: Features, texts: Texts) -> Tensor:
        """[B, C], within (1 + global_weight) logit scales of zero. Raises ValueError without raw crops."""
        import torch

        from stages.matching.sinkhorn import emd_scores

        crops = self.raw_crops(features)
        if self.include_global:
            crops = torch.cat([crops, features.whole.unsqueeze(1)], dim=1)
        first = 1 if self.global_weight else 0
        scores = emd_scores(
            crops,
            texts.vectors[:, first:],
            texts.mask[:, first:],
            epsilon=self.epsilon,
            iterations=self.iterations,
        )
        if self.global_weight:
            scores = scores + self.global_weight * features.whole @ texts.vectors[:, 0].T
        return texts.logit_scale * scores
