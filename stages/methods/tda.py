"""TDA: the whole image against prompts with the class's name, and against what the stream held before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from .bases import EnsembleMethod, TemplateSet
from .clip_e import ClipE
from .method import Features, Method
from .stream import StreamMethod

if TYPE_CHECKING:
    from torch import Tensor

    from stages.matching.stream_views import Selected


class Tda(StreamMethod, EnsembleMethod):
    """logit scale x x.T_c + the positive cache's votes - the negative one's; no label is read and nothing trained.

    x is the whole image. With `augmix` it is the mean of the surest tenth of 64 versions, which is the authors' form
    for images that are not like those of training. Prompts as in `clip_e`.
    """

    name: Literal["tda"] = "tda"
    templates: TemplateSet = Field(default="imagenet_7", description="a set that ships, or a file of templates")
    augmix: bool = Field(default=False, description="whether an image is read as AugMix versions of a view set")
    views: str | None = Field(default=None, description="name of that view set; default: the only one of its kind")

    source: ClassVar[str] = "Karmanov et al. 2024, TDA (arXiv 2403.18293); algorithms.md 10"
    version: ClassVar[int] = 1
    kind_of_views: ClassVar[str] = "augmix"
    base: ClassVar[type[Method]] = ClipE

    @property
    def needs_views(self) -> bool:
        return self.augmix

    def adapted(
        self, blocks: Callable[[], Iterator[Features]], prepared: Tensor, order: Tensor, classes: Tensor
    ) -> Tensor:
        """See `StreamMethod.adapted`; with `augmix` logits are means over the surest versions."""
        import torch

        from stages.matching.stream import run_stream

        features, logits, sure = [], [], []
        for block in blocks():
            if self.augmix:
                seen = self._surest(block, prepared, classes)
                features.append(seen.features)
                logits.append(seen.logits)
                sure.append((seen.entropies, seen.probabilities))
            else:
                features.append(self.image(block))
                logits.append(self.zero_shot(block, prepared)[:, classes])
        found = torch.cat(logits)
        given = {}
        if sure:
            given = {"entropies": torch.cat([one for one, _ in sure]), "probabilities": torch.cat([p for _, p in sure])}
        return run_stream(torch.cat(features), found, order, self.settings(), **given)

    def _surest(self, features: Features, prepared: Tensor, classes: Tensor) -> Selected:
        import torch

        from stages.matching.stream_views import select_views

        if features.raw is None:
            raise ValueError(f"method {self.row_name!r} reads AugMix versions; name a view set in its `views`")
        versions = torch.cat([features.whole.unsqueeze(1), features.raw], dim=1)
        return select_views(versions, (versions @ prepared.T)[..., classes])
