"""Optimal transport between an image's crops and a class's texts (D&D, algorithms.md 7.1 and 7.4).

Sinkhorn's iterations run on logarithms, so a small epsilon cannot underflow, and a weight of zero is an
honest minus infinity. Problems lie innermost, [N, M, problems]: sums over crops and texts then run over long
rows, which is several times quicker than over a last axis of nine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .pooling import text_counts
from .precision import at_least_float32

# Elements of cost held at a time: about what stays in a core's cache, and what fills an accelerator.
_BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**26}


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
    nan.

    With `tolerance`, iterations end early once no row sum of any problem is further than that from `a`. A
    problem's plan then depends a little on its neighbours; without it every problem takes the same steps in
    any batch.

    Raises ValueError for an epsilon <= 0, iterations < 1, or masses that are not positive and equal.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon is {epsilon}; it must be above 0 (use 1e-3 for nearly the exact assignment)")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; at least 1 is needed")
    cost, a, b = at_least_float32(cost), at_least_float32(a), at_least_float32(b)
    mass_a, mass_b = a.sum(dim=-1), b.sum(dim=-1)
    if not ((mass_a > 0) & ((mass_a - mass_b).abs() <= 1e-3 * mass_a)).all():
        raise ValueError("a and b must carry the same positive mass in every problem, e.g. sum to 1 each")
    padding = (a == 0).unsqueeze(-1) | (b == 0).unsqueeze(-2)
    log_kernel = (cost / -epsilon).masked_fill(padding, 0.0)
    lead = log_kernel.shape[:-2]
    plan = _scaled_kernel(
        log_kernel.movedim((-2, -1), (0, 1)).flatten(2).contiguous() if lead else log_kernel.unsqueeze(-1),
        _problems_last(a, lead).log(),
        _problems_last(b, lead).log(),
        iterations,
        tolerance,
    )
    return plan.unflatten(-1, lead).movedim((0, 1), (-2, -1)) if lead else plan.squeeze(-1)


def _problems_last(weights: Tensor, lead: torch.Size) -> Tensor:
    """[..., K] -> [K, problems], expanded over the leading dimensions."""
    return weights.expand(*lead, weights.shape[-1]).reshape(-1, weights.shape[-1]).T.contiguous()


def _scaled_kernel(
    log_kernel: Tensor, log_a: Tensor, log_b: Tensor, iterations: int, tolerance: float | None
) -> Tensor:
    """`log_kernel` [N, M, P] = -cost / epsilon, `log_a` [N, P], `log_b` [M, P] -> plan [N, M, P]."""
    # Padded columns are out from the first row sum on, or a problem's plan would depend on its padding.
    log_c = torch.zeros_like(log_b).masked_fill(log_b == -torch.inf, -torch.inf)
    log_r = None
    for _ in range(iterations):
        previous, log_r = log_r, log_a - (log_kernel + log_c).logsumexp(dim=1)
        if tolerance is not None and previous is not None:
            # r * (K c) is the row sum reached so far, and the new r is a / (K c).
            row_sums = (log_a + previous - log_r).masked_fill(log_a == -torch.inf, -torch.inf).exp()
            if (row_sums - log_a.exp()).abs().amax() <= tolerance:
                log_r = previous
                break
        log_c = log_b - (log_kernel + log_r.unsqueeze(1)).logsumexp(dim=0)
    return (log_kernel + log_r.unsqueeze(1) + log_c).exp()


def emd_scores(
    crops: Tensor,
    texts: Tensor,
    mask: Tensor,
    *,
    epsilon: float = 0.1,
    iterations: int = 20,
    marginals: tuple[Tensor | None, Tensor | None] | None = None,
) -> Tensor:
    """1 - EMD: the sum of plan x cosine over an image's crops and a class's texts, in [-1, 1].

    `crops` [B, N, d] and `texts` [C, M, d] unit rows, `mask` bool [C, M] (False: padding) -> [B, C]. The
    entropy term shapes the plan but is no part of the score (algorithms.md 7.1, step 5). `marginals` are the
    weights of the crops [B, N] and of the texts [C, M], >= 0 and of any sum; None means equal weights.

    Classes are taken in blocks, so memory beyond the result is a few buffers of one block's costs: 2^18
    numbers on a CPU, or one class of the batch (B x N x M numbers) if that is more.

    Raises ValueError for a class without texts, and as `sinkhorn_plan` does.
    """
    crops, texts = at_least_float32(crops), at_least_float32(texts)
    batch, crop_count, _ = crops.shape
    class_count, text_count, _ = texts.shape
    text_counts(mask)
    crop_weights, text_weights = marginals or (None, None)
    a = _weights(crop_weights, crops.new_ones(batch, crop_count))
    b = _weights(text_weights, mask.to(crops.dtype))
    budget = _BLOCK_ELEMENTS.get(crops.device.type, _BLOCK_ELEMENTS["cuda"])
    block = max(1, budget // max(1, batch * crop_count * text_count))
    scores = crops.new_empty(batch, class_count)
    for start in range(0, class_count, block):
        some = slice(start, start + block)
        present = texts[some].masked_fill(~mask[some].unsqueeze(-1), 0.0)
        cosines = torch.einsum("bnd,cmd->bcnm", crops, present)
        plan = sinkhorn_plan(1 - cosines, a.unsqueeze(1), b[some].unsqueeze(0), epsilon=epsilon, iterations=iterations)
        scores[:, some] = (plan * cosines).sum(dim=(-2, -1))
    return scores


def _weights(given: Tensor | None, present: Tensor) -> Tensor:
    """Weights that sum to one in each row and are zero where `present` [rows, K] is zero."""
    weights = present if given is None else present * given.to(present)
    return weights / weights.sum(dim=-1, keepdim=True)
