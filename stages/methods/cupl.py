"""CuPL: the whole image against the mean of the class's descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from prompts.phrasing import Form, phrase
from prompts.templates import is_path, read_templates

from .bases import DescriptorMethod, LinearMethod, TemplateSet


class Cupl(LinearMethod, DescriptorMethod):
    """logit scale x cosine of the whole image and the mean of a class's unit texts, rescaled to length one.

    Probabilities are softmax(logits). No views.
    """

    name: Literal["cupl"] = "cupl"
    with_templates: TemplateSet | None = Field(
        default=None,
        description="hand-written templates pooled in the same average: a set that ships, or a file; default: none",
    )

    source: ClassVar[str] = "Pratt et al. 2023, CuPL (arXiv 2209.03320); algorithms.md 4"
    version: ClassVar[int] = 1
    views: ClassVar[None] = None

    @property
    def paths(self) -> dict[str, str]:
        chosen = self.with_templates
        return {"with_templates": chosen} if chosen is not None and is_path(chosen) else {}

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """One prompt a description, then one a template. Raises ValueError for a file that cannot be read."""
        return self.class_prompts([class_name], None if descriptors is None else [descriptors], form)[0]

    def class_prompts(
        self, names: Sequence[str], descriptors: Sequence[Sequence[str]] | None, form: Form
    ) -> list[list[str]]:
        """As `prompts` for every class; the file is read once."""
        templates = read_templates(self.with_templates) if self.with_templates else []
        lists = [None] * len(names) if descriptors is None else descriptors
        return [
            [*DescriptorMethod.prompts(self, name, said, form), *(phrase(template, name) for template in templates)]
            for name, said in zip(names, lists, strict=True)
        ]
