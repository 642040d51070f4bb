"""CLIP-E: the whole image against an ensemble of hand-written prompts with the class's name."""

from __future__ import annotations

from typing import ClassVar, Literal

from .bases import EnsembleMethod


class ClipE(EnsembleMethod):
    """logit scale x cosine of the whole image and T_c = normalize(mean_k normalize(text of template k)).

    Probabilities are softmax(logits). No views, no descriptors.
    """

    name: Literal["clip_e"] = "clip_e"

    source: ClassVar[str] = "Radford et al. 2021 (arXiv 2103.00020), 3.1.4; algorithms.md 2"
    version: ClassVar[int] = 1
    views: ClassVar[None] = None
    descriptors: ClassVar[None] = None
