"""Products of stored vectors with the crops that descriptors chose, compiled: nothing is gathered first."""

from __future__ import annotations

from collections.abc import Callable

import numba
import torch
from torch import Tensor

from .kernel import kernel
from .lanes import WIDTH, load, spread, store, total
from .threads import share

_F = numba.float32
_I = numba.int64
# Vectors of a task: several a thread, and each long enough to be worth a turn.
_TASK = 512


@kernel(_F[:, :, ::1], _I[:, ::1], _F[:, ::1], _I[::1], _I, _I, _F[:, ::1])
def multiply_chosen(crops, chosen, vectors, groups, start, stop, products):
    """products[s, b] = crops[b, chosen[b, groups[s]]] . vectors[s], for s from `start` to `stop`.

    `crops` [B, M, d], `chosen` [B, G], `vectors` [S, d], `groups` [S], `products` [S, W] with W >= B.
    """
    batch, count, dim = crops.shape
    whole = dim - dim % WIDTH
    for first in range(start, stop, 4):
        # The last four may overlap those before: they say the same again.
        s = max(start, min(first, stop - 4))
        s1, s2, s3 = min(s + 1, stop - 1), min(s + 2, stop - 1), min(s + 3, stop - 1)
        g, g1, g2, g3 = groups[s], groups[s1], groups[s2], groups[s3]
        v, v1, v2, v3 = s * dim, s1 * dim, s2 * dim, s3 * dim
        for b in range(batch):
            c, c1 = (b * count + chosen[b, g]) * dim, (b * count + chosen[b, g1]) * dim
            c2, c3 = (b * count + chosen[b, g2]) * dim, (b * count + chosen[b, g3]) * dim
            x, x1, x2, x3 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            for k in range(0, whole, WIDTH):
                x = x + load(crops, c + k) * load(vectors, v + k)
                x1 = x1 + load(crops, c1 + k) * load(vectors, v1 + k)
                x2 = x2 + load(crops, c2 + k) * load(vectors, v2 + k)
                x3 = x3 + load(crops, c3 + k) * load(vectors, v3 + k)
            y, y1, y2, y3 = total(x), total(x1), total(x2), total(x3)
            for k in range(whole, dim):
                y += crops[b, chosen[b, g], k] * vectors[s, k]
                y1 += crops[b, chosen[b, g1], k] * vectors[s1, k]
                y2 += crops[b, chosen[b, g2], k] * vectors[s2, k]
                y3 += crops[b, chosen[b, g3], k] * vectors[s3, k]
            products[s, b], products[s1, b], products[s2, b], products[s3, b] = y, y1, y2, y3


@kernel(_F[:, :, ::1], _I[:, ::1], _F[:, ::1], _I[::1], _I, _I, _F[:, ::1])
def add_chosen(crops, chosen, factors, groups, start, stop, sums):
    """sums[s] += the sum over b of factors[s, b] crops[b, chosen[b, groups[s]]], for s from `start` to `stop`.

    `crops` [B, M, d], `chosen` [B, G], `factors` [S, B], `groups` [S], `sums` [S, d].
    """
    batch, count, dim = crops.shape
    whole = dim - dim % WIDTH
    for s in range(start, stop):
        for b in range(batch):
            crop, factor = chosen[b, groups[s]], factors[s, b]
            at, lanes = (b * count + crop) * dim, spread(factor)
            for k in range(0, whole, WIDTH):
                store(sums, s * dim + k, load(sums, s * dim + k) + lanes * load(crops, at + k))
            for k in range(whole, dim):
                sums[s, k] += factor * crops[b, crop, k]


class CompiledProducts(torch.autograd.Function):
    """`cache.chosen_products` in float32 on a CPU: `crops` [B, M, d], `chosen` [B, G], `vectors` [S, d], `groups` [S]
    -> [B, S]. Gradients flow to the vectors; for those it reads the crops once more, and nothing is gathered then."""

    @staticmethod
    def forward(ctx, crops: Tensor, chosen: Tensor, vectors: Tensor, groups: Tensor) -> Tensor:
        crops, chosen, groups = crops.contiguous(), chosen.contiguous(), groups.contiguous()
        ctx.save_for_backward(crops, chosen, groups)
        products = crops.new_empty(len(vectors), len(crops))
        _in_parts(multiply_chosen, crops, chosen, vectors.detach().contiguous(), groups, products)
        return products.T

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, None, Tensor, None]:
        crops, chosen, groups = ctx.saved_tensors
        sums = crops.new_zeros(len(groups), crops.shape[2])
        _in_parts(add_chosen, crops, chosen, gradient.T.contiguous(), groups, sums)
        return None, None, sums, None


def _in_parts(compiled: Callable, crops: Tensor, chosen: Tensor, rows: Tensor, groups: Tensor, out: Tensor) -> None:
    """All S rows by one of the kernels, shared by threads."""
    crops, chosen, rows, groups, out = (tensor.detach().numpy() for tensor in (crops, chosen, rows, groups, out))

    def worker() -> Callable[[int], None]:
        def part(start: int) -> None:
            compiled(crops, chosen, rows, groups, start, min(start + _TASK, len(rows)), out)

        return part

    share(range(0, len(rows), _TASK), worker, caller_works=True)
