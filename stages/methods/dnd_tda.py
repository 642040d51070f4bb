"""D&D on top of TDA: a stream's caches hold the crops that descriptions chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from .dnd import Dnd, PreparedTexts
from .method import Features, Method
from .stream import StreamMethod

if TYPE_CHECKING:
    from torch import Tensor


class DndTda(StreamMethod, Dnd):
    """logits of `dnd` + the positive cache's votes - the negative one's, as in `tda`.

    What is kept of an image are the crops that the descriptions of its predicted class choose; an image is compared
    with these by the crops that the same descriptions choose of it. Reconstructed, as `dnd` is.
    """

    name: Literal["dnd_tda"] = "dnd_tda"

    source: ClassVar[str] = "D&D (arXiv 2507.03458), reconstructed; algorithms.md 7.3"
    version: ClassVar[int] = 1
    base: ClassVar[type[Method]] = Dnd

    def adapted(
        self, blocks: Callable[[], Iterator[Features]], prepared: PreparedTexts, order: Tensor, classes: Tensor
    ) -> Tensor:
        """See `StreamMethod.adapted`."""
        import torch

        from stages.matching.dnd_stream import run_dnd_stream

        logits, crops = [], []
        for block in blocks():
            logits.append(self.zero_shot(block, prepared)[:, classes])
            crops.append(self.raw_crops(block).half())  # as they are stored, half the memory
        found, texts, mask = torch.cat(logits), prepared.vectors[classes], prepared.mask[classes]
        return run_dnd_stream(torch.cat(crops), texts, mask, found, order, self.settings())
