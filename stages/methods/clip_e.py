"""CLIP-E: the whole image against an ensemble of hand-written prompts with the class's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from prompts.phrasing import Form, phrase
from prompts.templates import is_path, read_templates

from .bases import LinearMethod, TemplateSet


class ClipE(LinearMethod):
    """logit scale x cosine of the whole image and T_c = normalize(mean_k normalize(text of template k)).

    Probabilities are softmax(logits). No views, no descriptors.
    """

    name: Literal["clip_e"] = "clip_e"
    templates: TemplateSet = Field(
        default="general",
        description="a set that ships (prompts/templates.yaml), or a file with a template a line or a list of them",
    )

    source: ClassVar[str] = "Radford et al. 2021 (arXiv 2103.00020), 3.1.4; algorithms.md 2"
    version: ClassVar[int] = 1
    views: ClassVar[None] = None
    descriptors: ClassVar[None] = None

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
