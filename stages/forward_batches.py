"""Forward passes in batches that are full, and that fit the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch

from stages.phases import Phases

SIZES = {"cpu": 64, "cuda": 256}
"""Inputs of one forward pass: enough to be fast, no more, for each takes megabytes of activations."""

Result = TypeVar("Result")


class ForwardBatches:
    """How many inputs go through a model at a time; halved, for good, when they do not fit the memory."""

    def __init__(self, device: torch.device) -> None:
        self.size = SIZES[device.type]

    def by_parts(self, items: Sequence | torch.Tensor, run: Callable[..., Result]) -> list[Result]:
        """What `run` makes of each part of `items`, in order."""
        results, start = [], 0
        while start < len(items):
            part = items[start : start + self.size]
            try:
                results.append(run(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.size = min(self.size, len(part)) // 2
                continue
            start += len(part)
        return results

    def stream(
        self, inputs: Iterable[torch.Tensor], encode: Callable[[torch.Tensor], torch.Tensor], phases: Phases
    ) -> torch.Tensor:
        """Features [K, d] of a stream of inputs [n, 3, S, S], encoded in full batches whatever n is.

        `phases` gets the seconds of crop (making the inputs) and encode.
        """
        encoded: list[torch.Tensor] = []
        held: list[torch.Tensor] = []
        arriving = iter(inputs)
        while True:
            with phases.measure("crop"):
                arrived = next(arriving, None)
                held += [] if arrived is None else [arrived]
                batch = torch.cat(held) if arrived is None or sum(map(len, held)) >= self.size else None
            if batch is None:
                continue
            full = len(batch) if arrived is None else len(batch) // self.size * self.size
            with phases.measure("encode"):
                encoded += self.by_parts(batch[:full], encode)
            if arrived is None:
                return torch.cat(encoded)
            held = [batch[full:]]
