"""WaffleCLIP: the whole image against random descriptors, the same for every class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from prompts.phrasing import Form, phrase, speaks_of_descriptors
from prompts.words import read_list, shipped_words
from prompts.words_at_random import characters_of, random_descriptors, shape_of

from .bases import DescriptorTemplate, DrawnMethod, LinearMethod, Seeds
from .method import Texts

if TYPE_CHECKING:
    from torch import Tensor

_TEMPLATE = "A photo of a {class}, {which}."


class Waffle(LinearMethod, DrawnMethod):
    """logit scale x mean of the cosines of the image and `A photo of a {class}, which has {nonsense}.`

    `pairs` times a few random words and a few blocks of random letters stand for descriptors, about as long as the
    class names are; letters are those that the descriptor set uses. Every class gets the same ones, so what they say
    cannot help: the control for descriptors. Words are ours, not the list of the published code, so its draws cannot be
    repeated to the letter. Lengths are counted in names as they are spoken, those of the published code in the keys of
    its files, which differ where keys have `_` for a space. Probabilities are softmax(logits). No views.
    """

    name: Literal["waffle"] = "waffle"
    descriptors: str | None = Field(
        default=None, description="name of the descriptor set whose characters are drawn; default: the job's only one"
    )
    characters: str | None = Field(
        default=None,
        min_length=1,
        description="characters to draw from; no descriptor set is read then. Default: those of the descriptor set",
    )
    words: str | None = Field(
        default=None,
        description="a file with a word a line (.txt) or a list of them (.json, .yaml); default: words that ship",
    )
    pairs: int = Field(
        default=15, ge=1, le=1000, description="word descriptors, and as many character descriptors beside them"
    )
    template: DescriptorTemplate = Field(
        default=_TEMPLATE, description="the prompt, with {class}, and {which} or {descriptor} for what is drawn"
    )
    concept: str | None = Field(
        default=None,
        min_length=1,
        description="what all classes are (bird, food, place): prompts then begin `A photo of a bird: a {class}`",
    )
    renormalize: bool = Field(
        default=False, description="rescale the mean prompt to length one, as the tables of WCA and ABS do"
    )
    seeds: Seeds = Field(default=list(range(7)), description="seeds of the random descriptors, each a run of its own")

    source: ClassVar[str] = "Roth et al. 2023, WaffleCLIP (arXiv 2306.07282); algorithms.md 5"
    version: ClassVar[int] = 1
    draws_prompts: ClassVar[bool] = True
    views: ClassVar[None] = None

    @model_validator(mode="after")
    def _agrees(self) -> Waffle:
        if not speaks_of_descriptors(self.template):
            raise ValueError(
                f"template {self.template!r} has no place for what is drawn; use {{which}} or {{descriptor}}"
            )
        if self.concept is not None and self.template != _TEMPLATE:
            raise ValueError("`concept` and `template` both say how a prompt begins; give one of them")
        if self.characters is not None:
            if self.descriptors is not None:
                raise ValueError("with `characters` no descriptor set is read; leave out one of the two")
            if not characters_of((self.characters,)):
                raise ValueError("`characters` has none that can be drawn: commas, full stops and spaces are left out")
        return self

    @property
    def needs_descriptors(self) -> bool:
        return self.characters is None

    @property
    def paths(self) -> dict[str, str]:
        return {} if self.words is None else {"words": self.words}

    @property
    def draws(self) -> bool:
        return True

    @property
    def prompt_template(self) -> str:
        """`template`, or what `concept` makes of it."""
        if self.concept is None:
            return self.template
        concept = self.concept.replace("{", "{{").replace("}", "}}")
        return f"A photo of a {concept}: a {{class}}, {{which}}."

    def prompts(self, class_name: str, descriptors: Sequence[str] | None, form: Form) -> list[str]:
        """2 x pairs prompts, shaped by this one class."""
        return self.class_prompts([class_name], None if descriptors is None else [descriptors], form)[0]

    def class_prompts(
        self, names: Sequence[str], descriptors: Sequence[Sequence[str]] | None, form: Form
    ) -> list[list[str]]:
        """2 x pairs prompts a class, which differ in its name alone. Raises ValueError without descriptors."""
        words = shipped_words() if self.words is None else read_list(self.words, "words")
        drawn = random_descriptors(
            shape_of(names), words, self._characters(descriptors), pairs=self.pairs, seed=self.only_seed()
        )
        template = self.prompt_template
        return [[phrase(template, name, text) for text in drawn] for name in names]

    def classifier(self, texts: Texts) -> Tensor:
        """The mean of a class's prompts, of length one where that is asked for, [C, d]."""
        return texts.mean if self.renormalize else texts.average

    def _characters(self, descriptors: Sequence[Sequence[str]] | None) -> str:
        """What character descriptors are drawn from."""
        if self.characters is not None:
            return characters_of((self.characters,))
        if descriptors is None or not (found := characters_of(tuple(chain.from_iterable(descriptors)))):
            raise ValueError(
                f"method {self.row_name!r} draws from the characters of descriptors, and there are none; "
                "name a descriptor set in its `descriptors`, or give `characters`"
            )
        return found
