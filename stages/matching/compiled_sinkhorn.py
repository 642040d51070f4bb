"""The compiled iterations on torch's tensors, in blocks that stay in cache, shared by threads.

Where one problem's costs lie too far apart for plain scaling in float32 (`scaling.REACH`), that problem, and no other
of its block, is solved on logarithms: a plan does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .lanes import WIDTH
from .log_domain import log_domain_plan
from .scaling import REACH, groups, scaled_plans, scaled_scores, scratch_length
from .threads import share

# Numbers of cost in a thread's block: half a megabyte, and so in a core's second cache with room for texts and crops.
_BLOCK_ELEMENTS = 2**17
# Columns from which on a product of matrices is efficient.
_ENOUGH_COLUMNS = 256


def compiled_plan(cost: Tensor, a: Tensor, b: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Plans of P problems in float32 on a CPU: `cost` [P, N, M], `a` [P, N], `b` [P, M] -> [P, N, M]."""
    problems, rows, columns = cost.shape
    plan = cost.new_empty(cost.shape)
    ranges = cost.new_empty(1, problems)
    # Problems go last: [1, N, M, P], views of the same memory.
    values, plans = (tensor.permute(1, 2, 0).unsqueeze(0).numpy() for tensor in (cost, plan))
    weights = [side.T.unsqueeze(0).numpy() for side in (a, b)]
    count = groups(1, problems)
    block = max(1, _BLOCK_ELEMENTS // (rows * columns * WIDTH))

    def worker() -> Callable[[int], None]:
        scratch = cost.new_zeros(scratch_length(rows, columns)).numpy()

        def solve(start: int) -> None:
            stop = min(start + block, count)
            scaled_plans(values, *weights, -1 / epsilon, iterations, start, stop, scratch, plans, ranges.numpy())

        return solve

    share(range(0, count, block), worker, caller_works=True)
    near = ranges[0] <= REACH
    if not near.all():
        some = ~near
        plan[some] = _far_plan(cost[some], a[some], b[some], epsilon, iterations).float()
    return plan


def _far_plan(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: int) -> Tensor:
    """On logarithms, in float64: exponents of thousands leave float32 too few digits for the sums of a plan."""
    sides = (cost.double(), a.double(), b.double())
    return log_domain_plan(*sides, epsilon=epsilon, iterations=iterations, tolerance=None)


def compiled_scores(crops: Tensor, texts: Tensor, a: Tensor, b: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """The sums of plan x cosine in float32 on a CPU: `crops` [B, N, d], `texts` [C, M, d], weights `a` [B, N] and
    `b` [C, M] that sum to one a row -> [B, C]. Cosines are computed by blocks and plans never leave the scratch."""
    batch, crop_count, _ = crops.shape
    class_count, text_count, _ = texts.shape
    scores = crops.new_empty(batch, class_count)
    if not scores.numel():
        return scores
    images_last = batch >= WIDTH
    images, classes = _block_size(batch, crop_count, text_count)
    tasks = [
        (slice(i, min(i + images, batch)), slice(c, min(c + classes, class_count)))
        for i in range(0, batch, images)
        for c in range(0, class_count, classes)
    ]

    def worker() -> Callable[[tuple[slice, slice]], None]:
        product = crops.new_empty(images * crop_count * classes * text_count)
        scratch = crops.new_zeros(scratch_length(crop_count, text_count)).numpy()
        arranged = lru_cache(maxsize=1)(lambda start: _arrange(crops[start : start + images], images_last))

        def solve(task: tuple[slice, slice]) -> None:
            chosen, some = task
            values = _cosines(arranged(chosen.start), len(crops[chosen]), texts[some], product, images_last)
            weights, found = (a[chosen], b[some]), scores[chosen, some]
            if images_last:
                sides = weights[0].T.unsqueeze(0), weights[1].unsqueeze(-1)
                found = found.T
            else:
                sides = weights[0].unsqueeze(-1), weights[1].T.unsqueeze(0)
            outer, _, _, problems = values.shape
            sides = [side.expand(outer, -1, problems).numpy() for side in sides]
            _solve_block(values, *sides, epsilon, iterations, scratch, found.numpy())

        return solve

    share(tasks, worker)
    return scores


def _block_size(batch: int, crop_count: int, text_count: int) -> tuple[int, int]:
    """Images and classes of a block. Sixteen images side by side suit the kernel, else sixteen classes must do.

    Their cosines are at most `_BLOCK_ELEMENTS` numbers, or those of sixteen problems if these are more.
    """
    entries = crop_count * text_count
    fitting = _BLOCK_ELEMENTS // (entries * WIDTH)
    if batch < WIDTH:
        images = max(1, min(batch, fitting))
        return images, WIDTH * max(1, fitting // images)
    images = WIDTH * max(1, min(-(-_ENOUGH_COLUMNS // (WIDTH * crop_count)), fitting))
    return images, max(1, _BLOCK_ELEMENTS // (images * entries))


def _arrange(crops: Tensor, images_last: bool) -> Tensor:
    """Crops [B, N, d] as rows: image after image, or the first crop of all images, the second of all, and so on."""
    return (crops.transpose(0, 1) if images_last else crops).reshape(-1, crops.shape[2])


def _cosines(rows: Tensor, images: int, texts: Tensor, product: Tensor, images_last: bool) -> np.ndarray:
    """All cosines of a block in `product`, as [Q, N, M, P]: Q classes and P images, or the other way round."""
    class_count, text_count, dim = texts.shape
    flat = texts.reshape(-1, dim)
    out = product[: len(flat) * len(rows)]
    if images_last:
        torch.mm(flat, rows.T, out=out.view(len(flat), -1))
        return out.view(class_count, text_count, -1, images).transpose(1, 2).numpy()
    torch.mm(rows, flat.T, out=out.view(len(rows), -1))
    return out.view(images, -1, class_count, text_count).permute(0, 1, 3, 2).numpy()


def _solve_block(
    cosines: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    iterations: int,
    scratch: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Scores [Q, P] of a block of cosines [Q, N, M, P]."""
    ranges = np.empty(scores.shape, np.float32)
    count = groups(*scores.shape)
    scaled_scores(cosines, a, b, 1 / epsilon, iterations, 0, count, scratch, scores, ranges)
    outer, problems = (~(ranges <= REACH)).nonzero()
    if len(outer):
        chosen, weights_a, weights_b = (torch.from_numpy(array[outer, ..., problems]) for array in (cosines, a, b))
        plan = _far_plan(1 - chosen, weights_a, weights_b, epsilon, iterations)
        padding = (weights_a == 0).unsqueeze(-1) | (weights_b == 0).unsqueeze(-2)
        scores[outer, problems] = (plan * chosen.masked_fill(padding, 0.0)).sum(dim=(-2, -1)).numpy()
