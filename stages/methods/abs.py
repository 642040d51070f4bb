"""ABS: attention-guided crops, each voting for the description it is surest of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prompts.phrasing import Form

from .bases import CropMethod, DescriptorMethod
from .explaining import Spoken, explain_means, number_rows
from .method import Features, Texts

if TYPE_CHECKING:
    from torch import Tensor


class Abs(CropMethod, DescriptorMethod):
    """l_c = sum_i sum_j p_icj s_icj over rows i of raw and feature crops and descriptions j of the class.

    s is cosine / temperature, and p_i the softmax of s over the descriptions of all classes at once.

    Logits are sums over F feature rows and so have no bound of their own; the stated probabilities are
    softmax(logits / (F x confidence_temperature)). Its default makes the labels of the demo's validation species
    likeliest: .016 to .028 for five kinds of views (`python -m demo.measure`). `fieldmark results` says how well it
    suits yours, as a calibration error. The logit scale is not used: `temperature` takes its place, and .03 assumes
    that cosines spread as CLIP's do. A description with a negative cosine counts against its class (see `soft_match`);
    `shift` lifts all cosines above that.

    With `crops: both` and a view set without feature crops the raw ones alone are matched. The paper's ablations are
    settings: `crops`, and `matching: mean`, which is logit scale x cosine of the mean row and the mean description,
    both of length one. `crops: whole` reads the whole image alone and no views.
    """

    name: Literal["abs"] = "abs"
    kind_of_views: ClassVar[str] = "guided"
    crops: Literal["both", "raw", "feature", "whole"] = Field(
        default="both",
        description="what is matched: raw crops, feature crops, both where there are both, or the whole image alone",
    )
    matching: Literal["soft", "mean"] = Field(
        default="soft", description="soft: each row votes by its softmax; mean: the cosine of means, as `crops_mean`"
    )
    temperature: float = Field(
        default=0.03, ge=1e-3, le=100.0, description="of the softmax over all descriptions, in cosine units"
    )
    shift: float = Field(
        default=0.0, ge=0, le=10, description="added to a cosine where it multiplies its share, not in the softmax"
    )
    prior: Literal["auto", "none", "equal"] = Field(
        default="auto",
        description="mass of a class with M descriptions before any crop is seen; none: in proportion to M; "
        "equal and auto: the same for all (-log M in the softmax), which changes nothing where all have as many",
    )
    max_descriptors: int | None = Field(
        default=50, ge=1, le=10_000, description="descriptions of a class that are read, the first ones"
    )
    truncate_to_min: bool = Field(
        default=False, description="read as many descriptions of every class as the one with the fewest has"
    )
    confidence_temperature: float = Field(
        default=0.02, gt=0, le=1e4, description="what soft logits / F are divided by before the stated probabilities"
    )

    source: ClassVar[str] = "ABS (arXiv 2505.13233), eq. 8-10; algorithms.md 8.4"
    version: ClassVar[int] = 1

    @property
    def needs_views(self) -> bool:
        return self.crops != "whole"

    @property
    def reads_feature_crops(self) -> bool:
        return self.crops in ("both", "feature")

    def class_prompts(
        self, names: Sequence[str], descriptors: Sequence[Sequence[str]] | None, form: Form
    ) -> list[list[str]]:
        """One prompt a description, for the first `max_descriptors` of them, or as many as every class has."""
        prompts = super().class_prompts(names, descriptors, form)
        if not self.truncate_to_min:
            return prompts
        fewest = min(map(len, prompts))
        return [texts[:fewest] for texts in prompts]

    def prepare(self, texts: Texts) -> Texts | Tensor:
        """The texts themselves, by which votes are shared; of means alone one vector a class, [C, d]."""
        return texts if self.matching == "soft" else texts.logit_scale * texts.mean

    def logits(self, features: Features, prepared: Texts | Tensor) -> Tensor:
        """[B, C], soft: within F x (1 + shift) / temperature of zero. ValueError when the crops asked for are missing.

        Rows vote independently, so the votes of each kind are worked out once for all ablations that read them.
        """
        from torch.nn.functional import normalize

        rows = self._rows(features)
        if self.matching == "soft":
            return sum(self._votes(kind, some, features, prepared) for kind, some in rows.items())
        total = sum(some.sum(dim=1) for some in rows.values())
        return normalize(total, dim=-1) @ prepared.T

    def probability_scale(self, features: Features) -> float:
        """1 / (F x confidence_temperature), F being the number of rows that vote; 1 for the cosines of means."""
        if self.matching == "mean":
            return 1.0
        return 1.0 / (sum(rows.shape[1] for rows in self._rows(features).values()) * self.confidence_temperature)

    def explain(self, features: Features, texts: Texts, classes: Sequence[int]) -> Spoken:
        """The votes: p x (cosine + shift) / temperature, or with `matching: mean` the parts of the cosine of means."""
        import torch

        from .weighting import equal_weights

        rows = self._rows(features)
        together, some = torch.cat(list(rows.values()), dim=1), list(classes)
        numbered = number_rows(**{kind: of_kind.shape[1] for kind, of_kind in rows.items()})
        vectors, rest = texts.vectors[some], torch.zeros(len(some))
        if self.matching == "mean":
            weights = torch.full((len(numbered),), 1 / len(numbered))
            sides = (together[0], weights, vectors, equal_weights(texts.mask)[some])
            return Spoken(numbered, 0, *explain_means(*sides, texts.logit_scale, renormalize=True), rest)
        from stages.matching.soft import soft_shares

        shares = soft_shares(together, texts.vectors, texts.mask, temperature=self.temperature, prior=self.prior)
        mass, cosines = shares[0][:, some].transpose(0, 1), torch.einsum("fd,kmd->kfm", together[0], vectors)
        return Spoken(numbered, 0, mass, cosines, mass * (cosines + self.shift) / self.temperature, rest)

    def _votes(self, kind: str, rows: Tensor, features: Features, texts: Texts) -> Tensor:
        """The votes of one kind of rows [B, N, d], [B, C]."""
        from stages.matching.soft import soft_match

        settings = {"temperature": self.temperature, "shift": self.shift, "prior": self.prior}
        key = ("votes", kind, rows.shape[1], texts, *settings.values())
        return features.shared.once(key, lambda: soft_match(rows, texts.vectors, texts.mask, **settings))

    def _rows(self, features: Features) -> dict[str, Tensor]:
        """The rows that vote by kind, feature crops first, as in F = [F_fs; F_rs]."""
        if self.crops == "whole":
            return {"whole": features.whole.unsqueeze(1)}
        if self.crops == "feature" and features.crops is None:
            raise ValueError(
                f"method {self.row_name!r} reads feature crops, and there are none: set `feature_crops: true` in its "
                "view set, or, where the model's features cannot be cropped, `crops: raw` here"
            )
        rows = {}
        if self.reads_feature_crops and features.crops is not None:
            rows["feature"] = self.first_crops(features.crops)
        if self.crops != "feature":
            rows["raw"] = self.raw_crops(features)
        return rows
