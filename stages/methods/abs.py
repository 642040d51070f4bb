"""ABS: attention-guided crops, each voting for the description it is surest of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prompts.phrasing import Form

from .method import DescriptorMethod, Features, Texts

if TYPE_CHECKING:
    from torch import Tensor


class Abs(DescriptorMethod):
    """Soft matching of raw and feature crops with the descriptions of all classes at once.

    Logits are sums over F feature rows and so have no bound of their own; the stated probabilities are
    softmax(logits / F), the softmax of a mean over crops. With `crops: both` and a view set without feature
    crops the raw ones alone are matched. The logit scale is not used: `temperature` takes its place, and .03
    assumes that cosines spread as CLIP's do.

    A description with a negative cosine counts against its class (see `soft_match`).
    """

    name: Literal["abs"] = "abs"
    needs_views: ClassVar[bool] = True
    kind_of_views: ClassVar[str] = "guided"
    views: str | None = Field(default=None, description="name of the view set; default: the job's only one")
    crops: Literal["both", "raw", "feature"] = Field(
        default="both",
        description="which crops are matched; both: the raw ones, and feature crops where there are any",
    )
    temperature: float = Field(
        default=0.03, ge=1e-3, le=100.0, description="of the softmax over all descriptions, in cosine units"
    )
    max_descriptors: int = Field(
        default=50, ge=1, le=10_000, description="descriptions of a class that are read, the first ones"
    )

    source: ClassVar[str] = "ABS (arXiv 2505.13233), eq. 8-10; algorithms.md 8.4"
    version: ClassVar[int] = 1

    @property
    def reads_feature_crops(self) -> bool:
        """True unless only raw crops are asked for."""
        return self.crops != "raw"

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """One prompt a description, for the first `max_descriptors` of them."""
        return super().prompts(class_name, descriptors, form)[: self.max_descriptors]

    def logits(self, features: Features, texts: Texts) -> Tensor:
        """[B, C], within F / temperature of zero. Raises ValueError when the crops asked for are missing."""
        import torch

        from stages.matching.soft import soft_match

        rows = torch.cat(self._rows(features), dim=1)
        return soft_match(rows, texts.vectors, texts.mask, temperature=self.temperature)

    def probability_scale(self, features: Features) -> float:
        """1 / F, F being the number of feature rows an image."""
        return 1.0 / sum(rows.shape[1] for rows in self._rows(features))

    def _rows(self, features: Features) -> list[Tensor]:
        """The feature rows that vote, feature crops first, as in F = [F_fs; F_rs]."""
        if self.crops == "feature" and features.crops is None:
            raise ValueError(
                f"method {self.row_name!r} reads feature crops, and there are none: set `feature_crops: true` in its "
                "view set, or, where the model's features cannot be cropped, `crops: raw` here"
            )
        rows = [features.crops] if self.reads_feature_crops and features.crops is not None else []
        return rows if self.crops == "feature" else [*rows, self.raw_crops(features)]
