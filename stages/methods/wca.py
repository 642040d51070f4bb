"""WCA: crops and descriptions averaged by their relevance (weighted visual-text cross alignment)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from prompts.phrasing import Form, phrase

from .bases import ClassTemplate, CropMethod, DescriptorMethod, DrawnMethod, LinearMethod
from .explaining import Spoken, explain_means, number_rows
from .method import Features, Texts

if TYPE_CHECKING:
    from torch import Tensor

_CODE = {"sample": 60, "seeds": list(range(20))}


class Wca(LinearMethod, CropMethod, DescriptorMethod, DrawnMethod):
    """logit scale x cosine of sum_i w_i x_i and sum_j v_j t_cj.

    w = softmax of image_scale x cosine of crop and whole image; v = softmax of text_scale x cosine of a class's
    description and its label prompt. Both sums are rescaled to length one as in the published code; without that
    (`renormalize: false`) it is the published formula, sum_ij w_i v_j x_i . t_cj. Probabilities are softmax(logits).

    The published code draws a pool of crops (a view set `{kind: squares, preset: wca_code, crops: 100}`), samples
    60 of them with replacement, the same places for all images, and repeats that 20 times: `preset: wca_code`.
    """

    name: Literal["wca"] = "wca"
    preset: Literal["wca", "wca_code"] = Field(
        default="wca",
        exclude=True,
        description="wca: every crop once; wca_code: sample 60 and seeds 0 to 19; keys that are given win",
    )
    kind_of_views: ClassVar[str] = "squares"
    image_scale: float = Field(
        default=math.exp(4), ge=0, le=1e4, description="sharpness of the crops' weights, a factor of cosines; 0: equal"
    )
    text_scale: float = Field(
        default=math.exp(2),
        ge=0,
        le=1e4,
        description="sharpness of the descriptions' weights, a factor of cosines; 0: equal",
    )
    label_template: ClassTemplate = Field(
        default="a photo of a {class}.", description="the prompt that descriptions are weighted by"
    )
    renormalize: bool = Field(
        default=True, description="rescale both weighted means to length one (code), or not (published formula)"
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="crops drawn with replacement, the same places for all images; default: every crop once",
    )

    source: ClassVar[str] = "Li et al. 2024, WCA (arXiv 2406.02915); algorithms.md 6"
    version: ClassVar[int] = 1

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        return {**_CODE, **data} if isinstance(data, Mapping) and data.get("preset") == "wca_code" else data

    @model_validator(mode="after")
    def _draws_are_used(self) -> Wca:
        if self.sample is None and len(self.seeds) > 1:
            raise ValueError("`seeds` draw samples, and every crop is read once: give `sample`, or leave `seeds` out")
        return self

    @property
    def draws(self) -> bool:
        return self.sample is not None

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """The label's own prompt, then one a description."""
        return [phrase(self.label_template, class_name), *super().prompts(class_name, descriptors, form)]

    def classifier(self, texts: Texts) -> Tensor:
        """The weighted description of each class, [C, d]."""
        from torch.nn.functional import normalize

        from .weighting import weighted_sum

        mean = weighted_sum(texts.vectors[:, 1:], self._text_weights(texts))
        return normalize(mean, dim=-1) if self.renormalize else mean

    def image(self, features: Features) -> Tensor:
        """The weighted crop of each image, [B, d]. Raises ValueError without raw crops."""
        from torch.nn.functional import normalize

        from .weighting import weighted_sum

        mean = weighted_sum(self.raw_crops(features), self._crop_weights(features))
        return normalize(mean, dim=-1) if self.renormalize else mean

    def explain(self, features: Features, texts: Texts, classes: Sequence[int]) -> Spoken:
        """Crops and descriptions by their weights; a crop that was not drawn has none."""
        import torch

        (crops,), some = self.raw_crops(features), list(classes)
        sides = (crops, self._crop_weights(features)[0], texts.vectors[some, 1:], self._text_weights(texts)[some])
        found = explain_means(*sides, texts.logit_scale, renormalize=self.renormalize)
        return Spoken(number_rows(raw=len(crops)), 1, *found, torch.zeros(len(some)))

    def _crop_weights(self, features: Features) -> Tensor:
        """w, [B, N]."""
        from .weighting import crop_relevance

        nearness = self.nearness_to_whole(features)
        return crop_relevance(nearness, self.image_scale, counts=self._times_drawn(nearness.shape[1]))

    def _text_weights(self, texts: Texts) -> Tensor:
        """v, [C, M], without the label's own prompt."""
        from .weighting import text_relevance

        return text_relevance(texts.vectors[:, 1:], texts.mask[:, 1:], texts.vectors[:, 0], self.text_scale)

    def _times_drawn(self, pool: int) -> Tensor | None:
        """How often each crop of the pool is in the sample, [pool]; None without a sample."""
        if self.sample is None:
            return None
        import numpy as np
        import torch

        drawn = np.random.default_rng(self.only_seed()).integers(pool, size=self.sample)
        return torch.from_numpy(np.bincount(drawn, minlength=pool))
