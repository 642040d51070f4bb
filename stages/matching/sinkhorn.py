"""Optimal transport between an image's crops and a class's texts (D&D, algorithms.md 7.1 and 7.4).

In float32 on a CPU Sinkhorn's iterations are compiled scalings (`scaling`); everything else, and problems whose costs
lie too far apart for that, iterates on logarithms in torch (`log_domain`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .log_domain import log_domain_plan
from .pooling import text_counts
from .precision import at_least_float32

Solver = Literal["ours", "pot", "exact"]

# Elements of cost that torch and the other solvers hold at a time: about a core's cache, and an accelerator's fill.
_BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**26}


@torch.no_grad()
def sinkhorn_plan(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    epsilon: float,
    iterations: int = 20,
    tolerance: float | None = None,
) -> Tensor:
    """The plan T that moves mass a to mass b at the least <T, cost> - epsilon * entropy(T).

    `cost` [..., N, M], `a` [..., N], `b` [..., M]; leading dimensions broadcast -> [..., N, M], T >= 0. The
    last step scales the columns: they sum to `b` exactly, the rows to `a` as nearly as `iterations` allow. A
    weight of zero in `a` or `b` marks padding: its row or column of T is zero whatever its cost, even inf or
    nan. No gradients flow through it.

    "Exactly" is to float32's last digits on a CPU. With a `tolerance`, or on another device, exponents of
    cost / epsilon are float32 too, and columns are off by about 3e-8 / epsilon of their weight for costs within 1.

    With `tolerance`, iterations end early once no row sum of any problem is further than that from `a`. A
    problem's plan then depends a little on its neighbours; without it every problem takes the same steps in
    any batch.

    Raises ValueError for an epsilon <= 0, iterations < 1, sides whose last dimension is not that of the cost, or
    masses that are not positive, finite and equal.
    """
    _check(epsilon, iterations)
    cost, a, b = at_least_float32(cost), at_least_float32(a), at_least_float32(b)
    rows, columns = cost.shape[-2:]
    if a.shape[-1] != rows or b.shape[-1] != columns:
        raise ValueError(
            f"a has {a.shape[-1]} weights and b has {b.shape[-1]}; a cost of {rows} rows and {columns} columns "
            "needs one for each"
        )
    mass_a, mass_b = a.sum(dim=-1), b.sum(dim=-1)
    if not ((mass_a > 0) & ((mass_a - mass_b).abs() <= 1e-3 * mass_a)).all():
        raise ValueError("a and b must carry the same positive mass in every problem, e.g. sum to 1 each")
    compiled = tolerance is None and all(_is_compiled(tensor) for tensor in (cost, a, b))
    if compiled:
        # Scalings of float32 end soon for masses far from 1. Logarithms bear any, and a tolerance is one of mass.
        a, b = a / mass_a.unsqueeze(-1), b / mass_b.unsqueeze(-1)
    lead = torch.broadcast_tensors(cost[..., 0, 0], mass_a, mass_b)[0].shape
    problems = (
        cost.expand(*lead, rows, columns).reshape(-1, rows, columns),
        a.expand(*lead, rows).reshape(-1, rows),
        b.expand(*lead, columns).reshape(-1, columns),
    )
    if compiled:
        from .compiled_sinkhorn import compiled_plan

        plan = compiled_plan(*problems, epsilon=epsilon, iterations=iterations)
        plan *= mass_b.expand(lead).reshape(-1, 1, 1)
    else:
        plan = log_domain_plan(*problems, epsilon=epsilon, iterations=iterations, tolerance=tolerance)
    return plan.reshape(*lead, rows, columns)


@torch.no_grad()
def emd_scores(
    crops: Tensor,
    texts: Tensor,
    mask: Tensor,
    *,
    epsilon: float = 0.1,
    iterations: int = 20,
    tolerance: float | None = None,
    crop_weights: Tensor | None = None,
    text_weights: Tensor | None = None,
    solver: Solver = "ours",
) -> Tensor:
    """1 - EMD: the sum of plan x cosine over an image's crops and a class's texts, in [-1, 1].

    `crops` [B, N, d] and `texts` [C, M, d] unit rows, `mask` bool [C, M] (False: padding) -> [B, C]. The
    entropy term shapes the plan but is no part of the score (algorithms.md 7.1, step 5). `crop_weights` [B, N]
    and `text_weights` [C, M] are the marginals, >= 0 and of any sum; None means equal weights. `tolerance` is
    `sinkhorn_plan`'s.

    `solver` is "ours"; "pot", the same iterations by POT's batch solver; or "exact", the transport without
    entropy, one problem after the other (`epsilon`, `iterations` and `tolerance` are not read).

    Classes and images are taken in blocks, so memory beyond the result is a few buffers of one block's costs:
    2^18 numbers on a CPU, or the least that can be taken at a time (one class of the batch, or sixteen
    problems a thread) if that is more.

    No gradients flow through it.

    Raises ValueError for a class without texts, for weights that are negative, not finite or all zero, for an unknown
    solver, and as `sinkhorn_plan` does.
    """
    crops, texts, a, b = _sides(crops, texts, mask, crop_weights, text_weights, epsilon, iterations, solver)
    settings = {"epsilon": epsilon, "iterations": iterations}
    if solver == "ours" and tolerance is None and _is_compiled(crops) and _is_compiled(texts):
        from .compiled_sinkhorn import compiled_scores

        return compiled_scores(crops, texts, a, b, **settings)
    return _scores_by_plans(crops, texts, a, b, _planner(solver, tolerance=tolerance, **settings))


@torch.no_grad()
def emd_plans(
    crops: Tensor,
    texts: Tensor,
    mask: Tensor,
    *,
    epsilon: float = 0.1,
    iterations: int = 20,
    tolerance: float | None = None,
    crop_weights: Tensor | None = None,
    text_weights: Tensor | None = None,
    solver: Solver = "ours",
) -> Tensor:
    """The plans behind `emd_scores`, whose arguments it takes: [B, C, N, M], all of them in memory.

    A plan sums to 1 and its columns to the texts' weights; padding is 0. `emd_scores` is the sum of plan x cosine. For
    one image and a few classes, whose transport somebody wants to see. With a `tolerance` the iterations end by the
    problems that are given here, and so a plan may differ a little from that of a larger batch.

    Raises what `emd_scores` raises.
    """
    crops, texts, a, b = _sides(crops, texts, mask, crop_weights, text_weights, epsilon, iterations, solver)
    settings = {"epsilon": epsilon, "iterations": iterations, "tolerance": tolerance}
    plan = partial(sinkhorn_plan, **settings) if solver == "ours" else _planner(solver, **settings)
    return _plans_of(_cosines(crops, texts, b), a, b, plan)


def _sides(
    crops: Tensor,
    texts: Tensor,
    mask: Tensor,
    crop_weights: Tensor | None,
    text_weights: Tensor | None,
    epsilon: float,
    iterations: int,
    solver: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crops and texts in a precision fit for sums, and their weights a [B, N] and b [C, M]; ValueErrors."""
    if solver not in ("ours", "pot", "exact"):
        raise ValueError(f"solver is {solver!r}; it must be 'ours', 'pot' or 'exact'")
    if solver != "exact":
        _check(epsilon, iterations)
    crops, texts = at_least_float32(crops), at_least_float32(texts)
    text_counts(mask)
    a = _weights("crop_weights", crop_weights, crops.new_ones(crops.shape[:2]))
    b = _weights("text_weights", text_weights, mask.to(texts))
    return crops, texts, a, b


def _check(epsilon: float, iterations: int) -> None:
    if not epsilon > 0:  # nor is a nan
        raise ValueError(f"epsilon is {epsilon}; it must be above 0 (use 1e-3 for nearly the exact assignment)")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; at least 1 is needed")


def _is_compiled(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _weights(name: str, given: Tensor | None, present: Tensor) -> Tensor:
    """Weights that sum to one in each row and are zero where `present` [rows, K] is zero."""
    weights = present if given is None else torch.where(present > 0, given.to(present), 0.0)
    sums = weights.sum(dim=-1, keepdim=True)
    right = (weights >= 0).all(dim=-1) & (sums[:, 0] > 0) & sums[:, 0].isfinite()
    if not right.all():
        wrong = (~right).nonzero().flatten().tolist()
        raise ValueError(
            f"{name} of row number {wrong} are negative, not finite or sum to 0; they must be >= 0 with a finite sum "
            "above 0"
        )
    return weights / sums


def _planner(
    solver: Solver, *, epsilon: float, iterations: int, tolerance: float | None
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What makes plans [P, N, M] of costs [P, N, M] and weights [P, N] and [P, M]."""
    from . import solvers

    if solver == "exact":
        return solvers.exact_plan
    plan = solvers.pot_plan if solver == "pot" else log_domain_plan
    return lambda cost, a, b: plan(cost, a, b, epsilon=epsilon, iterations=iterations, tolerance=tolerance)


def _scores_by_plans(
    crops: Tensor, texts: Tensor, a: Tensor, b: Tensor, plan: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Scores [B, C] from explicit plans, a block of classes at a time."""
    batch, crop_count, _ = crops.shape
    class_count, text_count, _ = texts.shape
    budget = _BLOCK_ELEMENTS.get(crops.device.type, _BLOCK_ELEMENTS["cuda"])
    block = max(1, budget // max(1, batch * crop_count * text_count))
    scores = crops.new_empty(batch, class_count)
    for start in range(0, class_count, block):
        some = slice(start, start + block)
        cosines = _cosines(crops, texts[some], b[some])
        scores[:, some] = (_plans_of(cosines, a, b[some], plan) * cosines).sum(dim=(-2, -1))
    return scores


def _cosines(crops: Tensor, texts: Tensor, b: Tensor) -> Tensor:
    """[B, C, N, M], 0 for padding."""
    return torch.einsum("bnd,cmd->bcnm", crops, texts.masked_fill(b.unsqueeze(-1) == 0, 0.0))


def _plans_of(cosines: Tensor, a: Tensor, b: Tensor, plan: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The plans [B, C, N, M] of these cosines, of all problems side by side."""
    lead = cosines.shape[:2]
    plans = plan(
        1 - cosines.flatten(0, 1),
        a.unsqueeze(1).expand(*lead, -1).flatten(0, 1),
        b.unsqueeze(0).expand(*lead, -1).flatten(0, 1),
    )
    return plans.view_as(cosines)
