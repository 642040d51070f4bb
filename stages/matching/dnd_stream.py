"""D&D on a stream: TDA's caches, of crops that the predicted class's descriptors chose (algorithms.md 7.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .cache import choose_crops
from .compiled_products import multiply_chosen
from .pooling import text_counts
from .stream_caches import StreamSettings, decide
from .stream_replay import BLOCK, gather, replay

Crops = Tensor | Callable[[Tensor], Tensor]


def run_dnd_stream(
    crops: Crops,
    texts: Tensor,
    mask: Tensor,
    logits: Tensor,
    order: Tensor,
    settings: StreamSettings,
    *,
    block: int = BLOCK,
) -> Tensor:
    """All adapted logits at once, float32 [T, C], rows as in `logits`; see `iter_dnd_stream`."""
    return gather(iter_dnd_stream(crops, texts, mask, logits, order, settings, block=block), logits)


def iter_dnd_stream(
    crops: Crops,
    texts: Tensor,
    mask: Tensor,
    logits: Tensor,
    order: Tensor,
    settings: StreamSettings,
    *,
    block: int = BLOCK,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Adapted logits, a block of samples at a time, as `stream.iter_stream` gives them.

    An item is what the descriptors of its predicted class c chose among its crops, one crop K_n a descriptor. Its
    vote is alpha x the mean over n of exp(-beta (1 - q_cn . K_n)), where q_cn is the crop that descriptor n of class c
    chooses among those of the sample that is scored (as `cache.aligned_affinities`). Who enters, whose place it takes
    and which classes an item speaks for are as in TDA, of `logits`.

    `crops` [T, M, d] unit rows, or a function of sample numbers int64 [b] that gives theirs, [b, M, d]; `texts`
    [C, N, d] unit rows, `mask` bool [C, N], `logits` [T, C] times the logit scale, `order` int64 [T] a permutation.
    Computed in float32 on the CPU; of crops, a block is held, and the caches' slots.

    Raises ValueError as `iter_stream`, for images without crops, and for texts that are not of the logits' classes.
    """
    if len(texts) != logits.shape[1] or texts.shape[:2] != mask.shape:
        shapes = f"texts {list(texts.shape)}, mask {list(mask.shape)} and logits {list(logits.shape)}"
        raise ValueError(f"{shapes} are of different classes; they must be [C, N, d], [C, N] and [T, C]")
    decisions = decide(logits, order, settings)
    yield from replay(_Crops(crops, texts, mask), decisions, logits, order, settings, block)


class _Crops:
    """A sample is its crops; kept of it is the crop that each descriptor of its predicted class chose."""

    def __init__(self, crops: Crops, texts: Tensor, mask: Tensor):
        mask = mask.cpu()
        self._crops = crops
        # Padding chooses some crop too, whose weight is zero; it must not be a nan that spreads.
        self._texts = texts.cpu().float().masked_fill(~mask.unsqueeze(-1), 0.0)
        self._weights = (mask.float() / text_counts(mask).unsqueeze(1)).numpy()

    @property
    def item(self) -> tuple[int, ...]:
        return tuple(self._texts.shape[1:])

    def weights(self, predicted: np.ndarray) -> np.ndarray:
        return self._weights[predicted]

    def read(self, samples: Tensor) -> Tensor:
        crops = self._crops(samples) if callable(self._crops) else self._crops[samples]
        if crops.shape[1] == 0:
            raise ValueError(f"crops {list(crops.shape)} have no rows; a descriptor needs at least one to choose from")
        return crops.cpu().float().contiguous()

    def items(self, read: Tensor, predicted: np.ndarray) -> Tensor:
        nearest = torch.bmm(read, self._texts[torch.from_numpy(predicted)].transpose(1, 2)).argmax(dim=1)
        return read.take_along_dim(nearest.unsqueeze(-1), dim=1)

    def queries(self, read: Tensor, predicted: np.ndarray) -> _CropQueries:
        texts = self._texts[torch.from_numpy(predicted)]
        chosen, _ = choose_crops(read, texts.flatten(0, 1))
        places = np.zeros(len(self._texts), np.int64)
        places[predicted] = np.arange(len(predicted)) * texts.shape[1]
        return _CropQueries(read, chosen, places)


@dataclass(frozen=True)
class _CropQueries:
    """Some samples' crops, which of them each descriptor chose, and where a class's descriptors begin there."""

    crops: Tensor
    chosen: Tensor
    places: np.ndarray

    def affinities(self, vectors: Tensor, predicted: np.ndarray, out: Tensor) -> None:
        groups = (self.places[predicted][:, None] + np.arange(vectors.shape[1])).ravel()
        rows = vectors.flatten(0, 1).numpy()
        multiply_chosen(self.crops.numpy(), self.chosen.numpy(), rows, groups, 0, len(rows), out.numpy())
