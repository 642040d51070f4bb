"""What a variant of a method reads, and the ingredients and name of the table that keeps its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from stages.encode_images import view_title
from stages.images_to_encode import split_keys
from stages.methods.method import Method
from stages.stage import Ingredients, Inputs, Table, without
from storage.fingerprint import digest


@dataclass(frozen=True)
class Support:
    """Where the cache of a few-shot variant comes from."""

    shots: pa.Table
    """key, class and shot of its images, by class and shot"""
    features: str
    """folder of whole images, augmented versions or crops, of which the keys are made"""
    chosen: str | None
    """folder of the crops that descriptions chose, where keys are such crops"""
    fitted: str = ""
    """folder of alpha, beta and learned keys (the stage `tune`)"""


@dataclass(frozen=True)
class Reading:
    """What one method (one variant of it) reads, and which classes it may predict."""

    method: Method
    prompts: dict[str, list[str]]
    """texts by class id, of all classes; one object for all methods that read the same texts"""
    texts: str
    """folder of the encoded texts, as `whole` and `view` are folders of features"""
    whole: str
    view: str | None
    classes: tuple[str, ...]
    """ids of the classes that may be predicted, in the order of `prompts`"""
    crops: int = 0
    """crops in pixels that are read an image: each was a forward pass"""
    share: float = 1.0
    """the share of its view set's crops that the method reads, in 0..1, and so of the time that encoding took"""
    folder: str = ""
    """where the predictions go"""
    support: Support | None = None
    """of a few-shot method"""

    @cached_property
    def tied(self) -> list[int] | None:
        """For each class the first that reads the same texts, one that may be predicted if any may; None where all
        read their own.

        Such classes tie exactly, whatever rounding does to them in their blocks. Those of a cache do not: their shots
        differ.
        """
        if self.support is not None:
            return None
        allowed, seen = set(self.classes), {}
        numbered = list(enumerate(self.prompts.items()))
        for number, (_, texts) in sorted(numbered, key=lambda one: one[1][0] not in allowed):
            seen.setdefault(tuple(texts), number)
        return None if len(seen) == len(numbered) else [seen[tuple(texts)] for _, (_, texts) in numbered]


@dataclass(frozen=True)
class Sources:
    """The tables that a variant reads under one seed of the crops."""

    method: Method
    seed: int
    prompts: dict[str, list[str]]
    texts: Table
    whole: Table
    view: Table | None
    title: str
    """`methods.NAME`; with `.seed.S` where several seeds draw the crops, `.shots.K` and `.draw.D` of a variant"""

    @property
    def rows(self) -> dict[str, str]:
        """Fingerprints of the features that are read image by image."""
        return {"whole": self.whole.fingerprint} | ({} if self.view is None else {"view": self.view.fingerprint})

    @property
    def crops(self) -> int:
        """How many of the view set's crops are read."""
        return _crops_read(self.method, self.view.plan[0].crops)

    @property
    def rejected(self) -> frozenset[str]:
        return self.whole.rejected | (frozenset() if self.view is None else self.view.rejected)

    def settings(self) -> dict[str, Any]:
        """The method's own settings, in the words of the job file: what files say is in the digest of the texts."""
        named = {"label", "views", "augmented_views", "descriptors", *self.method.paths}
        return {f"methods.{key}": value for key, value in self.method.model_dump(exclude=named).items()}

    def told(self) -> dict[str, Any]:
        """Names behind the ingredients, for people."""
        names = ("views", "descriptors", *self.method.paths)
        told = {**self.whole.told, **{f"methods.{key}": getattr(self.method, key, None) for key in names}}
        augmented = getattr(self.method, "augmentations", None)
        return told if augmented is None else told | {"methods.augmented_views": augmented}


class SourcesOfMethods:
    """The sources of every variant of the job's methods, in their order; made once for a plan's stage."""

    def __init__(self, inputs: Inputs, seeds: Sequence[int]):
        self.inputs, self.seeds = inputs, seeds
        self.encoded = {table.name: table for table in inputs.tables("encode_images")}
        (self.texts,) = inputs.tables("encode_text")
        self._digests: dict[int, str] = {}
        self._described: dict[tuple[int, bool], str] = {}
        self._wanted: dict[tuple[str, frozenset[str]], pa.ChunkedArray] = {}

    def all(self) -> list[Sources]:
        """One a variant, and of those that read crops one a seed of these."""
        found = []
        for method, prompts in self.texts.plan.prompts:
            views = getattr(method, "views", None)
            for seed in self.seeds if views is not None else self.seeds[:1]:
                view = None if views is None else self.view(views, seed)
                title = self._title(method, seed, view is not None)
                found.append(Sources(method, seed, prompts, self.texts, self.encoded["whole"], view, title))
        return found

    def view(self, name: str, seed: int) -> Table:
        """The table of a view set's draws under a seed."""
        return self.encoded[view_title(name, seed, self.seeds)]

    def wholes(self, sources: Sources) -> dict[str, str]:
        """Digests of what is read as a set: the texts."""
        known = id(sources.prompts)
        if known not in self._digests:
            key_of = self.texts.plan.keys
            said = [[name, [key_of[text] for text in texts]] for name, texts in sources.prompts.items()]
            self._digests[known] = digest(said)
        return {"texts": self._digests[known], "encode_text": self.texts.fingerprint}

    def described(self, sources: Sources) -> str:
        """A digest of the descriptions among the texts of a method that matches crops with them."""
        known = id(sources.prompts), sources.method.reads_label
        if known not in self._described:
            key_of, method = self.texts.plan.keys, sources.method
            said = [[name, [key_of[t] for t in method.descriptions(texts)]] for name, texts in sources.prompts.items()]
            self._described[known] = digest(said)
        return self._described[known]

    def keys(self, split: str, rejected: frozenset[str]) -> pa.ChunkedArray:
        """The keys of a split's images less the rejected ones; tables that want the same share them."""
        if (split, rejected) not in self._wanted:
            self._wanted[split, rejected] = without(split_keys(self.inputs.manifest, split), rejected)
        return self._wanted[split, rejected]

    def _title(self, method: Method, seed: int, reads_crops: bool) -> str:
        title = f"methods.{method.row_name}"
        if reads_crops and len(self.seeds) > 1:
            title += f".seed.{seed}"
        if method.shot is not None:
            title += f".shots.{method.shot}"
        return title if method.draw is None else f"{title}.draw.{method.draw}"


def reading_of(sources: Sources, classes: tuple[str, ...]) -> Reading:
    """What the workers are told of a variant."""
    method, view = sources.method, sources.view
    return Reading(
        method=method,
        prompts=sources.prompts,
        texts=sources.texts.keeper.folder,
        whole=sources.whole.keeper.folder,
        view=None if view is None else view.keeper.folder,
        classes=classes,
        crops=0 if view is None else _pixel_crops(method, view.plan[0].crops),
        share=1.0 if view is None else _crops_read(method, view.plan[0].crops) / view.plan[0].crops,
    )


def predictions_table(
    stage: str,
    reading: Reading,
    sources: Sources,
    wanted: pa.ChunkedArray,
    ingredients: Ingredients,
    inputs: Inputs,
) -> Table:
    """The table of a variant's predictions, whose plan is its reading and the seed of its crops."""
    keeper = inputs.shard_table(stage, ingredients)
    plan = (replace(reading, folder=keeper.folder), sources.seed)
    told = sources.told() | {"classes": list(reading.prompts)}
    return Table(stage, sources.title, ingredients, wanted, keeper, plan=plan, told=told)


def _pixel_crops(method: Method, available: int) -> int:
    """How many of a view set's crops in pixels the method reads: each was a forward pass of the encoder."""
    if getattr(method, "crops", None) == "feature":
        return 0
    return _crops_read(method, available)


def _crops_read(method: Method, available: int) -> int:
    return min(available, getattr(method, "max_crops", None) or available)
