"""Methods that learn from the query images themselves as these come by, one after the other, without labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from .bases import DrawnMethod, Seeds
from .method import Features, Method

if TYPE_CHECKING:
    from torch import Tensor

    from stages.matching.stream_caches import StreamSettings

PRESETS: dict[str, tuple[float, float]] = {
    "fixed": (2.0, 5.0),
    "imagenet": (2.0, 5.0),
    "imagenet_a": (2.0, 5.0),
    "imagenet_r": (1.0, 8.0),
    "imagenet_v2": (1.0, 8.0),
    "imagenet_sketch": (2.363, 7.45),
    "caltech101": (5.0, 5.0),
    "cars": (1.0, 7.0),
    "dtd": (2.0, 3.0),
    "eurosat": (4.0, 8.0),
    "fgvc": (2.0, 2.0),
    "flowers": (1.0, 5.0),
    "food101": (1.0, 1.0),
    "pets": (2.0, 7.0),
    "sun397": (2.0, 3.0),
    "ucf101": (3.0, 8.0),
}
"""alpha and beta of the positive cache as TDA's authors set them: chosen on the benchmarks themselves."""
Preset = Literal[
    "fixed", "imagenet", "imagenet_a", "imagenet_r", "imagenet_v2", "imagenet_sketch", "caltech101", "cars", "dtd",
    "eurosat", "fgvc", "flowers", "food101", "pets", "sun397", "ucf101",
]  # fmt: skip


class StreamMethod(DrawnMethod):
    """logits = zero-shot logits + votes of a positive cache - votes of a negative cache.

    Both hold images of the stream itself, by the class predicted for them: the positive one the most certain so far,
    the negative one those that are neither certain nor lost. An image is in its own cache when it is predicted. A
    variant is one order of the stream.
    """

    seeds: Seeds = Field(default=[1], description="seeds of the stream's order, each a run of its own")
    order: Literal["shuffled", "listed"] = Field(
        default="shuffled", description="shuffled by a hash of seed and image id, or in the order of the ids"
    )
    preset: Preset = Field(default="fixed", exclude=True, description="alpha and beta as for a benchmark, or fixed")
    alpha: float = Field(default=2.0, ge=0, le=1e4, description="weight of the positive cache's votes")
    beta: float = Field(default=5.0, gt=0, le=1e4, description="sharpness of a vote of the positive cache")
    capacity: int = Field(default=3, ge=0, le=1000, description="images a class in the positive cache; 0: none of it")
    negative_alpha: float = Field(default=0.117, ge=0, le=1e4, description="weight of the negative cache's votes")
    negative_beta: float = Field(default=1.0, gt=0, le=1e4, description="sharpness of a vote of the negative cache")
    negative_capacity: int = Field(
        default=2, ge=0, le=1000, description="images a class in the negative cache; 0: none of it"
    )
    min_entropy: float = Field(
        default=0.2, ge=0, le=1, description="the negative cache takes images above this entropy, in nats / log2(C)"
    )
    max_entropy: float = Field(default=0.5, ge=0, le=1, description="and below this one")
    min_probability: float = Field(
        default=0.03, ge=0, le=1, description="a negative vote counts against classes above this probability"
    )
    exclude_self: bool = Field(default=False, description="whether a newly cached image does not vote for itself")

    base: ClassVar[type[Method]]
    """the zero-shot method whose logits the stream adapts"""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("preset") not in list(PRESETS):
            return data
        alpha, beta = PRESETS[data["preset"]]
        return {"alpha": alpha, "beta": beta, **data}

    @property
    def draws(self) -> bool:
        return self.order == "shuffled"

    @abstractmethod
    def adapted(
        self, blocks: Callable[[], Iterator[Features]], prepared: Any, order: Tensor, classes: Tensor
    ) -> Tensor:
        """Logits with what the stream taught, [T, C], in the order of the images.

        `blocks()` gives the features of all T images, some at a time, in their order; `order` int64 [T] says which
        comes when. `classes` int64: those that may be predicted, and the only ones that the stream knows of.
        """

    def logits(self, features: Features, prepared: Any) -> Tensor:
        """Without a stream these images are one, in their order, [B, C]."""
        import torch

        order = torch.arange(len(features.whole))
        every = torch.arange(self.zero_shot(features, prepared).shape[1])
        return self.adapted(lambda: iter([features]), prepared, order, every)

    def zero_shot(self, features: Features, prepared: Any) -> Tensor:
        """Logits before anything was learned, [B, C]."""
        return self.base.logits(self, features, prepared)

    def settings(self) -> StreamSettings:
        """These settings as the kernels take them."""
        from stages.matching.stream_caches import StreamSettings

        return StreamSettings(
            positive_alpha=self.alpha,
            positive_beta=self.beta,
            positive_capacity=self.capacity,
            negative_alpha=self.negative_alpha,
            negative_beta=self.negative_beta,
            negative_capacity=self.negative_capacity,
            entropy_bounds=(self.min_entropy, self.max_entropy),
            mask_bounds=(self.min_probability, 1.0),
            exclude_self=self.exclude_self,
        )
