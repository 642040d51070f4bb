"""Weights are lowered once; what must stay exact does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.vision.low_precision import lower


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_are_lowered_but_for_those_to_keep_batch_norms_and_buffers(dtype):
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    module.register_buffer("positions", torch.rand(3))
    module[0].register_buffer("key_bias", torch.zeros(2))
    before = module[2].weight.clone()
    lower(module, dtype, keep=[module[2], module[3].weight])
    assert {parameter.dtype for parameter in module[0].parameters()} == {dtype}
    assert {parameter.dtype for parameter in module[1].parameters()} == {torch.float32}
    assert module[0].key_bias.dtype == dtype
    assert module[1].running_mean.dtype == torch.float32
    assert module.positions.dtype == torch.float32
    assert module[3].weight.dtype == torch.float32
    torch.testing.assert_close(module[2].weight, before, rtol=0, atol=0)
