"""The fine-tuned form of D&D's cache: the chosen crops are where its keys start from."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .dnd_tip import DndTip


class DndTipF(DndTip):
    """As `dnd_tip`, with keys trained on the shots as `tip_f` trains its own."""

    name: Literal["dnd_tip_f"] = "dnd_tip_f"
    epochs: int = Field(default=20, ge=1, le=10_000, description="passes over the shots")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="AdamW's, annealed to 0 by a cosine")

    version: ClassVar[int] = 1
    trained: ClassVar[bool] = True
