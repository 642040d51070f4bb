"""Provider `names`: templates around the class names alone, where nothing else is known of the classes yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prompts.templates import filled_templates
from stages.described import Given, GivenProvider
from stages.descriptor_settings import NamesDescriptors
from stages.stage import Inputs


class DescribedByNames(GivenProvider):
    """The same sentences of every class but for its name."""

    provider: ClassVar[str] = "names"
    settings: NamesDescriptors

    def given(self, names: Sequence[str], inputs: Inputs) -> Given:
        templates = self.settings.templates
        return Given(filled_templates(templates, names), f"templates {templates}")
