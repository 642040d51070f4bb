"""D&D on top of Tip-Adapter: a cache of the crops that descriptions chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from .dnd import Dnd, PreparedTexts
from .few_shot import FewShotMethod
from .method import Features, Method

if TYPE_CHECKING:
    from torch import Tensor

    from stages.matching.cache import Affinities, Keys


class DndTip(FewShotMethod, Dnd):
    """logits of `dnd` + alpha x A, where A compares an image's crops with those that descriptions chose of the shots.

    Of each shot every description of its class keeps the crop that fits it best. `query` says what is compared with
    these: `aligned`, for each class and description the image's own best crop; `all` of its crops; or the whole image
    (`global`). Reconstructed from a summary of the paper, as `dnd` is.
    """

    name: Literal["dnd_tip"] = "dnd_tip"
    query: Literal["aligned", "all", "global"] = Field(
        default="aligned", description="what is compared with the cache: chosen crops, all crops, or the whole image"
    )
    dedupe: bool = Field(
        default=False, description="whether a crop that several descriptions chose of a shot is kept once"
    )

    source: ClassVar[str] = "D&D (arXiv 2507.03458), reconstructed; algorithms.md 7.2"
    version: ClassVar[int] = 1
    base: ClassVar[type[Method]] = Dnd
    chooses_crops: ClassVar[bool] = True

    def choose(self, features: Features, prepared: PreparedTexts) -> Tensor | None:
        """For `aligned` queries the crop that each description of every class chooses, int64 [B, C x N]."""
        if self.query != "aligned":
            return None
        from stages.matching.cache import choose_crops

        crops = self.raw_crops(features)
        key = ("chosen crops", crops.shape[1], id(prepared))  # what the actor prepared lives as long as it does
        return features.shared.once(key, lambda: choose_crops(crops, prepared.vectors.flatten(0, 1))[0])

    def affinities(
        self, features: Features, prepared: PreparedTexts, keys: Keys, choice: Tensor | None = None
    ) -> Affinities:
        """Cosines of each image and key, as `query` says; a class's keys weigh 1 / its descriptions."""
        from stages.matching.cache import aligned_affinities, all_affinities, global_affinities

        if self.query == "global":
            return global_affinities(features.whole, keys, prepared.mask)
        crops = self.raw_crops(features)
        if self.query == "all":
            return all_affinities(crops, keys, prepared.mask)
        return aligned_affinities(crops, keys, prepared.vectors, prepared.mask, choice)
