"""The precision in which matching is done."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The same values in float32, or as they are when already float32 or float64.

    Features may be stored in half precision; similarities, softmaxes and Sinkhorn sums may not: logits of
    several hundred are 0.5 apart in float16 (algorithms.md 0.4 and 8.4).
    """
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
