"""What a method is: which views and texts it reads, and the logits it makes of them.

Importing a method costs nothing: the arithmetic (`stages.matching`, torch) is loaded when `logits` runs, so
plans, status and help can speak of methods without it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from prompts.phrasing import Form, check_template, phrase

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What the encoder saw in a batch of images; unit rows, float32.

    `whole` [B, d] the whole image, `raw` [B, N, d] crops cut from the picture, `crops` [B, N', d] crops cut
    from the feature map (None where the view set has none).
    """

    whole: Tensor
    raw: Tensor | None = None
    crops: Tensor | None = None


@dataclass(frozen=True)
class Texts:
    """The encoded prompts of all classes.

    `vectors` [C, M, d] unit rows, float32, padded to the longest class; `mask` bool [C, M] is True
    where a prompt stands. `logit_scale` is the model's own, about 100 for CLIP: what a cosine is multiplied
    by before a softmax.
    """

    vectors: Tensor
    mask: Tensor
    logit_scale: float

    @cached_property
    def mean(self) -> Tensor:
        """One unit vector a class [C, d]: the rescaled mean of its prompts, worked out once."""
        from stages.matching.pooling import mean_text

        return mean_text(self.vectors, self.mask)


class Method(BaseModel):
    """A way to turn features and texts into logits. To add one: a subclass in its own file, a registry line.

    Subclasses give `name` a Literal with its default, and the class variables below. `views` and
    `descriptors` are fields where the method needs them; None then means the job's only set of that kind.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str
    label: str | None = Field(default=None, min_length=1, description="row name in tables; default: the method's name")

    source: ClassVar[str]
    """Where the rule comes from: paper, and section of algorithms.md."""
    version: ClassVar[int]
    """Raised whenever the logits that the same settings give change."""
    needs_views: ClassVar[bool] = False
    kind_of_views: ClassVar[str] = "random"
    """The kind of view set that is meant where the job file names none."""
    needs_descriptors: ClassVar[bool] = False

    @property
    def row_name(self) -> str:
        return self.label or self.name

    @property
    def reads_feature_crops(self) -> bool:
        """Whether `Features.crops` is used where the view set has them."""
        return False

    @abstractmethod
    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """The texts to encode for one class, at least one, in the order in which `logits` expects them.

        `descriptors` are the class's own, written as `form` says. Raises ValueError where they are needed and
        missing.
        """

    @abstractmethod
    def logits(self, features: Features, texts: Texts) -> Tensor:
        """One score an image and class, float32 [B, C]; the highest wins."""

    def probability_scale(self, features: Features) -> float:
        """The factor for which softmax(logits * factor) are the method's stated probabilities."""
        return 1.0

    def raw_crops(self, features: Features) -> Tensor:
        """`features.raw`, or a ValueError that says which setting would supply them."""
        if features.raw is None:
            raise ValueError(f"method {self.row_name!r} reads crops; name a view set in its `views`")
        return features.raw


ClassTemplate = Annotated[str, AfterValidator(lambda template: check_template(template, ("class",)))]
DescriptorTemplate = Annotated[str, AfterValidator(check_template)]


class DescriptorMethod(Method):
    """A method that reads a descriptor set."""

    needs_descriptors: ClassVar[bool] = True

    descriptors: str | None = Field(default=None, description="name of the descriptor set; default: the job's only one")
    template: DescriptorTemplate = Field(
        default="a photo of a {class}, {which}.",
        description="completes an attribute by {class}, {descriptor}, {which}; sentences stay as they are",
    )

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """Sentences as they are, attributes through `template`, one prompt a descriptor in their order."""
        if not descriptors:
            raise ValueError(
                f"method {self.row_name!r} has no descriptors for class {class_name!r}; "
                "name a descriptor set that has some in its `descriptors`"
            )
        if form == "sentences":
            return list(descriptors)
        return [phrase(self.template, class_name, descriptor) for descriptor in descriptors]
