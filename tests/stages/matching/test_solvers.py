"""POT's batch solver and its exact one give what ours gives, where they must."""

from __future__ import annotations

import math

import pytest
import torch

from stages.matching.sinkhorn import emd_scores
from stages.matching.solvers import exact_plan, pot_plan


@pytest.fixture
def ragged(unit_rows):
    """Crops [18, 6, d], texts [4, 5, d] with nan for padding, their mask, and weights of both."""
    crops, texts = unit_rows(18, 6, 12), unit_rows(4, 5, 12, seed=1)
    mask = torch.tensor([[True] * 5, [True, False, True, False, True], [False, True] + [False] * 3, [True] * 5])
    draw = torch.Generator().manual_seed(2)
    weights = {"crop_weights": torch.rand(18, 6, generator=draw), "text_weights": torch.rand(4, 5, generator=draw)}
    weights["crop_weights"][:, 1] = 0
    return crops, torch.where(mask.unsqueeze(-1), texts, torch.nan), mask, weights


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pot_takes_the_same_steps(ragged, weighted, dtype):
    crops, texts, mask, weights = ragged
    settings = {"epsilon": 0.05, "iterations": 7, **(weights if weighted else {})}
    ours = emd_scores(crops.to(dtype), texts.to(dtype), mask, **settings)
    pot = emd_scores(crops.to(dtype), texts.to(dtype), mask, solver="pot", **settings)
    torch.testing.assert_close(ours, pot, atol=3e-6 if dtype == torch.float32 else 1e-12, rtol=0)


def test_pot_stops_by_a_tolerance(ragged):
    crops, texts, mask, _ = ragged
    settings = {"epsilon": 0.05, "iterations": 2000}
    stopped = emd_scores(crops, texts, mask, solver="pot", tolerance=1e-2, **settings)
    steps = emd_scores(crops, texts, mask, solver="pot", **settings)
    assert 0 < (stopped - steps).abs().max() < 2e-2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_epsilon_comes_to_the_exact_transport(ragged, weighted, dtype):
    crops, texts, mask, weights = ragged
    weights = weights if weighted else {}
    # Uneven weights leave plans that are nearly as good as the best, which a smaller epsilon tells apart too slowly.
    epsilon, within = (5e-3, 5e-3) if weighted else (1e-3, 5e-4)
    ours = emd_scores(crops.to(dtype), texts.to(dtype), mask, epsilon=epsilon, iterations=2000, **weights)
    exact = emd_scores(crops.to(dtype), texts.to(dtype), mask, solver="exact", **weights)
    assert (ours - exact).abs().max() < within
    assert exact.dtype == dtype


@pytest.mark.parametrize("solve", ["exact", "pot"])
def test_padding_has_no_part_in_a_plan_whatever_its_cost(solve):
    cost = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).expand(2, -1)
    b = torch.tensor([[0.25, 0.0, 0.25, 0.5]], dtype=torch.float64).expand(2, -1)

    def plan(cost):
        if solve == "exact":
            return exact_plan(cost, a, b)
        return pot_plan(cost, a, b, epsilon=0.05, iterations=3000, tolerance=None)

    clean = plan(cost)
    torch.testing.assert_close(clean.sum(dim=2), a, atol=1e-6, rtol=0)
    torch.testing.assert_close(clean.sum(dim=1), b, atol=1e-6, rtol=0)
    for junk in (math.inf, -math.inf, math.nan):
        padded = cost.clone()
        padded[:, 2], padded[:, :, 1] = junk, junk
        assert plan(padded).equal(clean)


def test_the_exact_solver_reads_neither_epsilon_nor_iterations(ragged):
    crops, texts, mask, _ = ragged
    one = emd_scores(crops, texts, mask, solver="exact", epsilon=0.1)
    assert one.equal(emd_scores(crops, texts, mask, solver="exact", epsilon=5.0, iterations=1))
