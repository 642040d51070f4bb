"""Weights in half precision, once, when a model is loaded.

Autocast casts weights again in every pass, and on a CPU under `torch.inference_mode` it turns attention's packed
projection into a batched product with a copy of the weights for each image, which takes longer than fp32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Precision = Literal["fp32", "fp16", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def lower(module: nn.Module, dtype: torch.dtype, keep: Iterable[nn.Module | nn.Parameter]) -> None:
    """Turn a module's parameters into `dtype`, but for those of the parts to `keep` and of batch norms.

    Buffers stay as they are where a module has nothing else: they hold positions, which half precision would blur, as
    it would a batch norm's statistics. Beside parameters of a module they belong to these (EVA's key biases).
    """
    parts = [*keep, *(part for part in module.modules() if isinstance(part, _BatchNorm))]
    kept = {id(p) for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())}
    for part in module.modules():
        own = [p for p in part.parameters(recurse=False) if id(p) not in kept and p.is_floating_point()]
        for parameter in own:
            parameter.data = parameter.data.to(dtype)
        for name, buffer in part.named_buffers(recurse=False) if own else ():
            if buffer.is_floating_point():
                setattr(part, name, buffer.to(dtype))
