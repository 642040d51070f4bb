"""POT's solvers (Python Optimal Transport) behind our signature: the oracles of our own, and a choice.

Both read `cost` [P, N, M], `a` [P, N] and `b` [P, M], whose rows sum to the same mass; a weight of zero marks padding,
whose cost may be anything and whose part of the plan is zero. They return plans [P, N, M].
"""

from __future__ import annotations

import torch
from torch import Tensor

# So far from every real cost that its share is zero from the first step on, and finite where a mask would be inf - inf.
_OUT_OF_REACH = 1e9


def pot_plan(cost: Tensor, a: Tensor, b: Tensor, *, epsilon: float, iterations: int, tolerance: float | None) -> Tensor:
    """`ot.batch.solve_batch`: the same iterations on logarithms, in the same order.

    With `tolerance` they end once every problem's row error has a norm below it, which POT looks at every ten steps.
    """
    from ot.batch import solve_batch

    padding = (a == 0).unsqueeze(-1) | (b == 0).unsqueeze(-2)
    found = solve_batch(
        cost.masked_fill(padding, _OUT_OF_REACH),
        reg=epsilon,
        a=a,
        b=b,
        max_iter=iterations,
        tol=tolerance or 0.0,
        method="log_sinkhorn",
        grad="detach",
    )
    return found.plan


def exact_plan(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`ot.emd` on each problem in turn, in float64: a plan of least cost, without an entropy term."""
    import ot

    plan = torch.zeros_like(cost)
    for number in range(cost.shape[0]):
        rows, columns = a[number].nonzero().flatten(), b[number].nonzero().flatten()
        weights = (side.double().cpu().numpy() for side in (a[number, rows], b[number, columns]))
        inside = cost[number][rows][:, columns].double().cpu().numpy()
        found = ot.emd(*(side / side.sum() for side in weights), inside)
        plan[number, rows.unsqueeze(1), columns] = torch.from_numpy(found).to(plan) * a[number].sum()
    return plan
