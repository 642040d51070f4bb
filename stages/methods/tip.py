"""Tip-Adapter: the whole image against prompts with the class's name, and against the shots' own features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from .bases import EnsembleMethod, TemplateSet
from .clip_e import ClipE
from .few_shot import FewShotMethod
from .method import Features, Method

if TYPE_CHECKING:
    from torch import Tensor

    from stages.matching.cache import Affinities, Keys


class Tip(FewShotMethod, EnsembleMethod):
    """logit scale x x.T_c + alpha x sum over the shots k of class c of exp(-beta (1 - x.k)).

    A key k is the mean of a shot's augmented versions, each with its own norm, rescaled to length one. Prompts as in
    `clip_e`.
    """

    name: Literal["tip"] = "tip"
    templates: TemplateSet = Field(default="imagenet_7", description="a set that ships, or a file of templates")
    augmented: bool = Field(
        default=True, description="whether a key is the mean of augmented versions of its shot, or the whole image"
    )
    augmented_views: str = Field(
        default="augmented", description="the view set that holds these versions, encoded for shots alone"
    )

    source: ClassVar[str] = "Zhang et al. 2022, Tip-Adapter (arXiv 2207.09519); algorithms.md 9"
    version: ClassVar[int] = 1
    base: ClassVar[type[Method]] = ClipE

    @property
    def augmentations(self) -> str | None:
        return self.augmented_views if self.augmented else None

    def affinities(self, features: Features, prepared: Tensor, keys: Keys, choice: Tensor | None = None) -> Affinities:
        """Cosines of the whole image and each key."""
        import torch

        from stages.matching.cache import global_affinities

        return global_affinities(features.whole, keys, torch.ones(len(prepared), 1, dtype=torch.bool))
