"""Tip-Adapter-F: Tip-Adapter whose keys are learned from the shots."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .tip import Tip


class TipF(Tip):
    """As `tip`, with keys that start as the shots' features and are trained on them: AdamW, cosine annealing.

    Of the epochs' keys those are kept that are best on the validation split, or the last where there is none: never
    those that are best on the query split, as the authors' code keeps them. Learned keys are not rescaled.
    """

    name: Literal["tip_f"] = "tip_f"
    epochs: int = Field(default=20, ge=1, le=10_000, description="passes over the shots; the authors' EuroSAT: 100")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="AdamW's, annealed to 0 by a cosine")

    version: ClassVar[int] = 1
    trained: ClassVar[bool] = True
