"""What a method is: which views and texts it reads, and the logits it makes of them.

Importing a method costs nothing: the arithmetic (`stages.matching`, torch) is loaded when `logits` runs, so
plans, status and help can speak of methods without it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from prompts.phrasing import Form

from .shared import Shared

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What the encoder saw in a batch of images; unit rows, float32.

    `whole` [B, d] the whole image, `raw` [B, N, d] crops cut from the picture, `crops` [B, N', d] crops cut
    from the feature map (None where the view set has none). `shared` remembers what methods work out of these
    features and others ask for too.
    """

    whole: Tensor
    raw: Tensor | None = None
    crops: Tensor | None = None
    shared: Shared = field(default_factory=Shared)


@dataclass(frozen=True, eq=False)
class Texts:
    """The encoded prompts of all classes.

    `vectors` [C, M, d] unit rows, float32, padded with zeros to the longest class; `mask` bool [C, M] is
    True where a prompt stands. `logit_scale` is the model's own, about 100 for CLIP: what a cosine is multiplied
    by before a softmax. Two methods that read the same prompts share work if they hold the same object.
    """

    vectors: Tensor
    mask: Tensor
    logit_scale: float

    @cached_property
    def mean(self) -> Tensor:
        """One unit vector a class [C, d]: the mean of its prompts, rescaled to length one; worked out once."""
        from stages.matching.pooling import mean_text

        return mean_text(self.vectors, self.mask)

    @cached_property
    def average(self) -> Tensor:
        """The mean of a class's prompts as it is, [C, d]: its cosine is the mean of their cosines; worked out once."""
        from .weighting import equal_weights, weighted_sum

        return weighted_sum(self.vectors, equal_weights(self.mask))


class Method(BaseModel):
    """A way to turn features and texts into logits. To add one: a subclass in its own file, a registry line.

    Subclasses give `name` a Literal with its default, and the class variables below; `bases` has what several
    have in common. `views` and `descriptors` are fields where the method needs them; None then means the
    job's only set of that kind.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str
    label: str | None = Field(default=None, min_length=1, description="row name in tables; default: the method's name")

    source: ClassVar[str]
    """Where the rule comes from: paper, and section of algorithms.md."""
    version: ClassVar[int]
    """Raised whenever the logits that the same settings give change."""
    draws_prompts: ClassVar[bool] = False
    """Whether the method's own draws are of its prompts, which then differ between its variants."""
    needs_views: ClassVar[bool] = False
    """Whether a view set must be chosen; a property where it depends on the settings."""
    kind_of_views: ClassVar[str] = "random"
    """The kind of view set that is meant where the job file names none."""
    needs_descriptors: ClassVar[bool] = False
    """Whether a descriptor set must be chosen; a property where it depends on the settings."""

    @property
    def row_name(self) -> str:
        return self.label or self.name

    @property
    def reads_feature_crops(self) -> bool:
        """Whether `Features.crops` is used where the view set has them."""
        return False

    @property
    def paths(self) -> dict[str, str]:
        """Settings that name files of the user's own -> those paths, relative to the job file until it is read."""
        return {}

    @property
    def draw(self) -> int | None:
        """The seed of the method's own random draws, where it has any and this is one variant of them."""
        return None

    @property
    def shot(self) -> int | None:
        """Labelled images a class that the method reads, where it reads any and this is one variant of it."""
        return None

    @property
    def title(self) -> str:
        """What tells the method from others in comparisons: its row's name, with the number of shots."""
        return self.row_name if self.shot is None else f"{self.row_name} ({self.shot})"

    def variants(self) -> tuple[Method, ...]:
        """The methods to run in its place: one for each of its own random draws, or itself where it has none."""
        return (self,)

    @abstractmethod
    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """The texts to encode for one class, at least one, in the order in which `logits` expects them.

        `descriptors` are the class's own, written as `form` says. Raises ValueError where they are needed and
        missing.
        """

    def class_prompts(
        self, names: Sequence[str], descriptors: Sequence[Sequence[str]] | None, form: Form
    ) -> list[list[str]]:
        """The texts of all classes in their order; each class's own `prompts`, where they do not depend on the others.

        `names` as they are spoken, which may repeat; `descriptors` one list a class, or None. Raises ValueError
        as `prompts` does.
        """
        lists = [None] * len(names) if descriptors is None else descriptors
        return [self.prompts(name, said, form) for name, said in zip(names, lists, strict=True)]

    def prepare(self, texts: Texts) -> Any:
        """What `logits` reads of the texts, worked out once; what it does not hold on to can be let go."""
        return texts

    @abstractmethod
    def logits(self, features: Features, prepared: Any) -> Tensor:
        """One score an image and class, float32 [B, C], the highest wins; `prepared` is what `prepare` gave."""

    def probability_scale(self, features: Features) -> float:
        """The factor for which softmax(logits * factor) are the method's stated probabilities."""
        return 1.0
