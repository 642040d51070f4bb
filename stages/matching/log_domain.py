"""Sinkhorn's iterations on logarithms, in torch: any precision and device, any epsilon (algorithms.md 7.1 and 7.4).

A small epsilon cannot underflow, and a weight of zero is an honest minus infinity. Problems lie innermost,
[N, M, problems]: sums over crops and texts then run over long rows, which is several times quicker than over a last
axis of nine.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_domain_plan(
    cost: Tensor, a: Tensor, b: Tensor, *, epsilon: float, iterations: int, tolerance: float | None
) -> Tensor:
    """The plans of P problems: `cost` [P, N, M], `a` [P, N], `b` [P, M] -> [P, N, M]; else as `sinkhorn_plan`."""
    padding = (a == 0).unsqueeze(-1) | (b == 0).unsqueeze(-2)
    log_kernel = (cost / -epsilon).masked_fill(padding, 0.0).permute(1, 2, 0).contiguous()
    log_a, log_b = a.T.contiguous().log(), b.T.contiguous().log()
    # Padded columns are out from the first row sum on, or a problem's plan would depend on its padding.
    log_c = torch.zeros_like(log_b).masked_fill(log_b == -torch.inf, -torch.inf)
    log_r = None
    for _ in range(iterations):
        previous, log_r = log_r, log_a - (log_kernel + log_c).logsumexp(dim=1)
        if tolerance is not None and previous is not None and _off(log_a, previous, log_r) <= tolerance:
            log_r = previous
            break
        log_c = log_b - (log_kernel + log_r.unsqueeze(1)).logsumexp(dim=0)
    return (log_kernel + log_r.unsqueeze(1) + log_c).exp().permute(2, 0, 1)


def _off(log_a: Tensor, previous: Tensor, log_r: Tensor) -> Tensor:
    """How far the row sums reached by `previous` are from a, at most: r (K c), where the new r is a / (K c)."""
    row_sums = (log_a + previous - log_r).masked_fill(log_a == -torch.inf, -torch.inf).exp()
    return (row_sums - log_a.exp()).abs().amax()
