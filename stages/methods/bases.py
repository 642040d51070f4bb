"""What methods have in common: they read descriptors, crops, templates; they are linear; they draw at random."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, field_validator

from prompts.phrasing import Form, check_template, phrase, speaks_of_descriptors
from prompts.templates import check_templates, is_path, read_templates

from .method import Features, Method, Texts

if TYPE_CHECKING:
    from torch import Tensor

ClassTemplate = Annotated[str, AfterValidator(lambda template: check_template(template, ("class",)))]
DescriptorTemplate = Annotated[str, AfterValidator(check_template)]
TemplateSet = Annotated[str, AfterValidator(check_templates)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class LinearMethod(Method):
    """logits = logit scale x image vector . class vector: all of the texts that is kept is one vector a class."""

    def classifier(self, texts: Texts) -> Tensor:
        """One vector a class, [C, d]."""
        return texts.mean

    def image(self, features: Features) -> Tensor:
        """One vector an image, [B, d]."""
        return features.whole

    def prepare(self, texts: Texts) -> Tensor:
        """The classifier times the logit scale, [C, d]."""
        return texts.logit_scale * self.classifier(texts)

    def logits(self, features: Features, prepared: Tensor) -> Tensor:
        """[B, C], within one logit scale of zero."""
        return self.image(features) @ prepared.T


class EnsembleMethod(LinearMethod):
    """A linear method whose texts are the class's name in each of a set of templates."""

    templates: TemplateSet = Field(
        default="general",
        description="a set that ships (prompts/templates.yaml), or a file with a template a line or a list of them",
    )

    @property
    def paths(self) -> dict[str, str]:
        return {"templates": self.templates} if is_path(self.templates) else {}

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """One prompt a template; descriptors are not read. Raises ValueError for a file that cannot be read."""
        return self.class_prompts([class_name], None, form)[0]

    def class_prompts(
        self, names: Sequence[str], descriptors: Sequence[Sequence[str]] | None, form: Form
    ) -> list[list[str]]:
        """As `prompts` for every class; the file is read once."""
        templates = read_templates(self.templates)
        return [[phrase(template, name) for template in templates] for name in names]


class DescriptorMethod(Method):
    """A method that reads a descriptor set."""

    needs_descriptors: ClassVar[bool] = True

    descriptors: str | None = Field(default=None, description="name of the descriptor set; default: the job's only one")
    template: DescriptorTemplate = Field(
        default="a photo of a {class}, {which}.",
        description="completes an attribute by {class}, {descriptor}, {which}; sentences stay as they are",
    )
    max_descriptors: int | None = Field(
        default=None, ge=1, le=10_000, description="descriptors of a class that are read, the first ones; default: all"
    )

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """Sentences as they are, attributes through `template`, one prompt a descriptor in their order.

        A template with neither {descriptor} nor {which} gives one prompt, not the same again for each of them.
        """
        if not descriptors:
            raise ValueError(
                f"method {self.row_name!r} has no descriptors for class {class_name!r}; "
                "name a descriptor set that has some in its `descriptors`"
            )
        some = list(descriptors[: self.max_descriptors])
        if form == "sentences":
            return some
        if not speaks_of_descriptors(self.template):
            return [phrase(self.template, class_name)]
        return [phrase(self.template, class_name, descriptor) for descriptor in some]


class CropMethod(Method):
    """A method that reads the crops of a view set."""

    needs_views: ClassVar[bool] = True

    views: str | None = Field(default=None, description="name of the view set; default: the job's only one")
    max_crops: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="crops that are read, the first ones of the view set, whose draws are independent; default: all",
    )

    def raw_crops(self, features: Features) -> Tensor:
        """The crops in pixels to read, [B, N, d]; a ValueError says which setting would supply them."""
        if features.raw is None:
            raise ValueError(f"method {self.row_name!r} reads crops; name a view set in its `views`")
        return self.first_crops(features.raw)

    def first_crops(self, crops: Tensor) -> Tensor:
        """The first `max_crops` of crops [B, N, d]; ValueError where there are fewer."""
        if self.max_crops is not None and self.max_crops > crops.shape[1]:
            raise ValueError(
                f"method {self.row_name!r} reads {self.max_crops} crops (`max_crops`), and its view set has "
                f"{crops.shape[1]}: raise `crops` of the view set, or lower `max_crops`"
            )
        return crops[:, : self.max_crops]

    def nearness_to_whole(self, features: Features) -> Tensor:
        """The cosine of each raw crop and the whole image, [B, N]."""
        import torch

        crops = self.raw_crops(features)
        return features.shared.once(
            ("nearness to whole", crops.shape[1]), lambda: torch.einsum("bnd,bd->bn", crops, features.whole)
        )


class DrawnMethod(Method):
    """A method with random draws of its own, beside those of the crops; results are means over them."""

    seeds: Seeds = Field(default=[0], description="seeds of the method's own draws, each a run of its own")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("each seed stands there once")
        return seeds

    @property
    @abstractmethod
    def draws(self) -> bool:
        """Whether anything is drawn under the present settings."""

    @property
    def draw(self) -> int | None:
        """The one seed of `seeds`, where anything is drawn."""
        return self.seeds[0] if self.draws and len(self.seeds) == 1 else None

    def variants(self) -> tuple[Self, ...]:
        """One method a seed."""
        if not self.draws or len(self.seeds) == 1:
            return (self,)
        return tuple(self.model_copy(update={"seeds": [seed]}) for seed in self.seeds)

    def only_seed(self) -> int:
        """The seed of a variant; ValueError for a method that has several."""
        if len(self.seeds) > 1:
            raise ValueError(f"method {self.row_name!r} has {len(self.seeds)} draws; take one of its variants()")
        return self.seeds[0]
