"""Methods that read a support set: K labelled images a class, the shots, whose features are a cache of keys."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator

from .bases import DrawnMethod, Seeds
from .method import Features, Method

if TYPE_CHECKING:
    from torch import Tensor

    from stages.matching.cache import Affinities, Keys

_ELEMENTS = 2**25
"""Affinities that are held at a time; some arrays of that size are alive at once."""

Shots = Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=1)]


@dataclass(frozen=True, eq=False)
class Cache:
    """The keys of a support set, the weight `alpha` of their votes beside the zero-shot logits, and `beta`, how fast a
    vote falls off with distance."""

    keys: Keys
    alpha: float
    beta: float


class FewShotMethod(DrawnMethod):
    """logits = zero-shot logits + alpha x votes of the cache, a vote w exp(-beta (1 - cosine)) for the key's class.

    A variant is one number of shots and one seed of their draw. With a validation split alpha and beta are those that
    are best there, of 20 x 200 pairs; no image of the query split is looked at.
    """

    shots: Shots = Field(default=[1, 2, 4, 8, 16], description="labelled images a class, each number a run of its own")
    seeds: Seeds = Field(default=[1, 2, 3], description="seeds of the draw of shots, each a run of its own")
    alpha: float = Field(default=1.0, ge=0, le=1e4, description="weight of the cache's votes, where it is not searched")
    beta: float = Field(default=5.5, gt=0, le=1e4, description="sharpness of a vote, where it is not searched")
    search: bool | None = Field(
        default=None,
        description="whether alpha and beta are searched on the validation split; default: where there is one",
    )
    max_alpha: float = Field(default=10.0, gt=0.1, le=1e4, description="end of the search's 20 alphas, from .1 on")
    max_beta: float = Field(default=20.0, gt=0.1, le=1e4, description="end of the search's 200 betas, from .1 on")

    base: ClassVar[type[Method]]
    """the zero-shot method whose logits the votes are added to"""
    trained: ClassVar[bool] = False
    """whether the keys are learned from the shots"""
    chooses_crops: ClassVar[bool] = False
    """whether the keys are crops that descriptions chose (the stage `build_caches`)"""

    @field_validator("shots")
    @classmethod
    def _distinct_shots(cls, shots: list[int]) -> list[int]:
        if len(set(shots)) != len(shots):
            raise ValueError("each number of shots stands there once")
        return sorted(shots)

    @property
    def draws(self) -> bool:
        return True

    @property
    def shot(self) -> int | None:
        """The one number of `shots`."""
        return self.shots[0] if len(self.shots) == 1 else None

    def variants(self) -> tuple[Self, ...]:
        """One method a number of shots and seed."""
        pairs = product(self.shots, self.seeds)
        return tuple(self.model_copy(update={"shots": [shots], "seeds": [seed]}) for shots, seed in pairs)

    @property
    def augmentations(self) -> str | None:
        """The view set of which a shot's key is the mean, where it is one that only the support set needs."""
        return None

    def zero_shot(self, features: Features, prepared: Any) -> Tensor:
        """Logits without the cache, [B, C], worked out once for all variants."""
        key = ("zero shot", self.zero_shot_key(), id(prepared))  # what the actor prepared lives as long as it does
        return features.shared.once(key, lambda: self.base.logits(self, features, prepared))

    def zero_shot_key(self) -> str:
        """What two variants must agree in for their logits without the cache to be the same."""
        settings = set(self.base.model_fields) - {"name", "label"}
        return self.base.__name__ + self.model_dump_json(include=settings)

    @abstractmethod
    def affinities(self, features: Features, prepared: Any, keys: Keys, choice: Tensor | None = None) -> Affinities:
        """How near each image is to the keys; `choice` is what `choose` gave for these images, if anything."""

    def choose(self, features: Features, prepared: Any) -> Tensor | None:
        """What all variants choose alike of each image, whatever their keys, worked out once; a row an image."""
        return None

    def logits(self, features: Features, prepared: tuple[Any, Cache]) -> Tensor:
        """[B, C]; `prepared` is what `prepare` gave, and the cache."""
        import torch

        from stages.matching.cache import class_votes

        texts, cache = prepared
        logits, votes = self.zero_shot(features, texts), []
        crops = 1 if features.raw is None else features.raw.shape[1]
        choice = self.choose(features, texts)
        for some in torch.arange(len(logits)).split(self.images_at_once(len(cache.keys.owners), crops)):
            part = Features(features.whole[some], None if features.raw is None else features.raw[some])
            near = self.affinities(part, texts, cache.keys, None if choice is None else choice[some])
            votes.append(class_votes(near.values, near.owners, logits.shape[1], beta=cache.beta, weights=near.weights))
        return logits + cache.alpha * torch.cat(votes)

    def images_at_once(self, keys: int, crops: int) -> int:
        """How many images' affinities to so many keys fit 256 MB, at least one."""
        return max(1, _ELEMENTS // max(1, keys * (crops if getattr(self, "query", "") == "all" else 1)))
