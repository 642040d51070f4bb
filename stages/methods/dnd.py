"""D&D: crops transported to descriptions (decomposition and description)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from prompts.phrasing import Form, phrase

from .bases import ClassTemplate, CropMethod, DescriptorMethod
from .explaining import Spoken, number_rows
from .method import Features, Texts

if TYPE_CHECKING:
    from torch import Tensor


_LEAST_WEIGHT = 1e-6


def _some_weight(weights: list[float]) -> list[float]:
    # Bounded on both sides, so that neither a weight nor a sum is lost or infinite in float32.
    if any(0 < weight < _LEAST_WEIGHT for weight in weights):
        raise ValueError(f"a weight is 0, or at least {_LEAST_WEIGHT:g}")
    if not any(weights):
        raise ValueError("weights must not all be 0")
    return weights


Weights = Annotated[
    list[Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]], Field(min_length=1), AfterValidator(_some_weight)
]


@dataclass(frozen=True)
class PreparedTexts:
    """What `Dnd.logits` reads of the texts: descriptions [C, M, d] and their mask, weights [C, M] and labels [C, d]."""

    vectors: Tensor
    mask: Tensor
    weights: Tensor | None
    labels: Tensor | None
    logit_scale: float


class Dnd(CropMethod, DescriptorMethod):
    """logit scale x (1 - EMD) = logit scale x sum_mn T_mn cos(crop m, description n), T the plan of least cost.

    T moves the crops' weights to the descriptions' at the least sum of T x (1 - cosine) - epsilon x entropy(T), by
    Sinkhorn's iterations. Reconstructed from a summary of the paper: neither its full text nor code was at hand. The
    summary gives nine crops, nine descriptions (`max_descriptors`), and EMD by Sinkhorn; epsilon, iterations, equal
    weights and the template agree with three published classifiers by optimal transport, and every one of them is a
    setting here. Probabilities are softmax(logits).
    """

    name: Literal["dnd"] = "dnd"
    epsilon: float = Field(
        default=0.1,
        ge=1e-3,
        le=1e3,
        description="entropy of the plan, in cosine units; large: the plain mean",
    )
    iterations: int = Field(default=20, ge=1, le=10_000, description="Sinkhorn steps; a smaller epsilon needs more")
    tolerance: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="end the iterations early once the mass that arrives is wrong by no more than this; "
        "a prediction then depends a little on its batch. Default: all iterations",
    )
    solver: Literal["ours", "pot", "exact"] = Field(
        default="ours",
        description="ours; pot: ot.batch of Python Optimal Transport; exact: ot.emd, without entropy, one by one",
    )
    crop_weights: Literal["uniform", "relevance"] | Weights = Field(
        default="uniform",
        description="mass of the crops: equal, by cosine with the whole image, or a number for each crop, "
        "0 or 1e-6 to 1e6, of any sum",
    )
    crop_temperature: float = Field(
        default=0.1, ge=1e-3, le=100, description="of the softmax behind `crop_weights: relevance`, in cosine units"
    )
    max_descriptors: int | None = Field(
        default=9,
        ge=1,
        le=10_000,
        description="descriptions of a class that are read, the first ones; 9 as in the paper, null: all",
    )
    text_weights: Literal["uniform", "relevance"] = Field(
        default="uniform",
        description="mass of a class's descriptions: equal, or by cosine with `label_template`",
    )
    text_temperature: float = Field(
        default=0.1, ge=1e-3, le=100, description="of the softmax behind `text_weights: relevance`, in cosine units"
    )
    include_global: bool = Field(default=False, description="count the whole image as one more crop, the last")
    global_weight: float = Field(
        default=0.0,
        ge=0.0,
        le=100.0,
        description="weight of the whole image's cosine with `label_template`, added to the score; 0: none",
    )
    label_template: ClassTemplate = Field(
        default="a photo of a {class}.", description="the prompt that `global_weight` and `text_weights` read"
    )

    source: ClassVar[str] = "D&D (arXiv 2507.03458), reconstructed; algorithms.md 7.1"
    version: ClassVar[int] = 1

    @property
    def reads_label(self) -> bool:
        """Whether the label's own prompt is read, and stands before the descriptions."""
        return self.global_weight > 0 or self.text_weights == "relevance"

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """One prompt a description; before them the label's own where it is read."""
        described = super().prompts(class_name, descriptors, form)
        return [phrase(self.label_template, class_name), *described] if self.reads_label else described

    def descriptions(self, prompts: Sequence[str]) -> list[str]:
        """Of a class's `prompts` those that describe it."""
        return list(prompts[1:] if self.reads_label else prompts)

    def prepare(self, texts: Texts) -> PreparedTexts:
        """Labels and descriptions apart, and the descriptions' weights."""
        if not self.reads_label:
            return PreparedTexts(texts.vectors, texts.mask, None, None, texts.logit_scale)
        labels, vectors, mask = texts.vectors[:, 0], texts.vectors[:, 1:], texts.mask[:, 1:]
        weights = None
        if self.text_weights == "relevance":
            from .weighting import text_relevance

            weights = text_relevance(vectors, mask, labels, 1 / self.text_temperature)
        return PreparedTexts(vectors, mask, weights, labels, texts.logit_scale)

    def logits(self, features: Features, prepared: PreparedTexts) -> Tensor:
        """[B, C], within (1 + global_weight) logit scales of zero. Raises ValueError without raw crops."""
        from stages.matching.sinkhorn import emd_scores

        crops = self._crops(features)
        settings = self._transport() | {"crop_weights": self._weights_of(crops, features)}
        scores = emd_scores(crops, prepared.vectors, prepared.mask, text_weights=prepared.weights, **settings)
        if self.global_weight:
            scores = scores + self.global_weight * features.whole @ prepared.labels.T
        return prepared.logit_scale * scores

    def explain(self, features: Features, texts: Texts, classes: Sequence[int]) -> Spoken:
        """The transport plans of these classes: logit scale x T x cosine, and as the rest the label's own part.

        With a `tolerance` the iterations end by the classes that are asked for, so sums agree with `logits` only as
        nearly as it allows.
        """
        import torch

        from stages.matching.sinkhorn import emd_plans

        prepared, some = self.prepare(texts), list(classes)
        crops, vectors, mask = self._crops(features), prepared.vectors[some], prepared.mask[some]
        settings = self._transport() | {"crop_weights": self._weights_of(crops, features)}
        weights = None if prepared.weights is None else prepared.weights[some]
        plans = emd_plans(crops, vectors, mask, text_weights=weights, **settings)[0]
        cosines, rest = torch.einsum("nd,kmd->knm", crops[0], vectors), torch.zeros(len(some))
        if self.global_weight:
            rest = prepared.logit_scale * self.global_weight * prepared.labels[some] @ features.whole[0]
        rows = number_rows(raw=crops.shape[1] - self.include_global, whole=int(self.include_global))
        return Spoken(rows, int(self.reads_label), plans, cosines, prepared.logit_scale * plans * cosines, rest)

    def _crops(self, features: Features) -> Tensor:
        """What is transported, [B, N, d]."""
        import torch

        crops = self.raw_crops(features)
        return torch.cat([crops, features.whole.unsqueeze(1)], dim=1) if self.include_global else crops

    def _transport(self) -> dict[str, Any]:
        """How the plan is made, but for the weights."""
        names = ("epsilon", "iterations", "tolerance", "solver")
        return {name: getattr(self, name) for name in names}

    def _weights_of(self, crops: Tensor, features: Features) -> Tensor | None:
        """Weights of these crops, [B, N]; None where they are equal."""
        import torch

        if self.crop_weights == "uniform":
            return None
        if self.crop_weights == "relevance":
            from .weighting import crop_relevance

            return crop_relevance(torch.einsum("bnd,bd->bn", crops, features.whole), 1 / self.crop_temperature)
        if len(self.crop_weights) != crops.shape[1]:
            also = ", the whole image among them" if self.include_global else ""
            raise ValueError(
                f"method {self.row_name!r} has {len(self.crop_weights)} `crop_weights` "
                f"for {crops.shape[1]} crops{also}; give one for each"
            )
        return torch.tensor(self.crop_weights).expand(crops.shape[0], -1).to(crops)
