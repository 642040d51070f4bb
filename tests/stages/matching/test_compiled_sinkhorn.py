"""Float32 on a CPU takes the compiled iterations: the same plans as torch's on logarithms in float64."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from stages.matching import compiled_sinkhorn, compiled_soft, threads
from stages.matching.log_domain import log_domain_plan
from stages.matching.pooling import mean_cosine
from stages.matching.sinkhorn import emd_scores, sinkhorn_plan
from stages.matching.soft import soft_match

SIZES = [(1, 1), (1, 6), (6, 1), (2, 2), (9, 9), (7, 50), (33, 17), (60, 50)]


def draw_problems(count: int, rows: int, columns: int, spread: float = 0.3):
    """Costs [P, N, M] and weights [P, N], [P, M] that sum to one, some of them zero, in float32."""
    draw = torch.Generator().manual_seed(rows * 100 + columns)
    cost = 1 - spread * torch.randn(count, rows, columns, generator=draw)
    sides = []
    for size in (rows, columns):
        weights = torch.rand(count, size, generator=draw) + 0.1
        weights[: count // 2, 1 : 1 + size // 4] = 0
        sides.append(weights / weights.sum(1, keepdim=True))
    return cost, *sides


def oracle(cost, a, b, epsilon: float = 0.1, iterations: int = 20) -> torch.Tensor:
    # Masses that are equal in float32 differ in float64 by rounding, which iterations must not see.
    a, b = (side.double() / side.double().sum(-1, keepdim=True) for side in (a, b))
    return log_domain_plan(cost.double(), a, b, epsilon=epsilon, iterations=iterations, tolerance=None)


def assert_plans_agree(plan, expected, within: float = 1e-5) -> None:
    largest = expected.amax(dim=(-2, -1), keepdim=True)
    assert ((plan.double() - expected).abs() / largest).max() < within


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("count", [1, 16, 37])
def test_plans_of_every_size_are_those_of_the_iteration_on_logarithms(rows, columns, count):
    problems = draw_problems(count, rows, columns)
    plan = sinkhorn_plan(*problems, epsilon=0.1)
    assert plan.dtype == torch.float32
    assert_plans_agree(plan, oracle(*problems))


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.5, 50.0])
def test_plans_stay_exact_over_the_range_of_epsilon(epsilon):
    problems = draw_problems(40, 9, 9, spread=0.05)
    assert_plans_agree(sinkhorn_plan(*problems, epsilon=epsilon), oracle(*problems, epsilon))


def test_costs_too_far_apart_for_plain_scaling_leave_their_neighbours_alone():
    cost, a, b = draw_problems(20, 5, 6, spread=0.05)
    near = sinkhorn_plan(cost, a, b, epsilon=0.1)
    cost[3] *= 100
    cost[17, 0, 0] = math.inf
    plan = sinkhorn_plan(cost, a, b, epsilon=0.1)
    others = [number for number in range(20) if number not in (3, 17)]
    assert plan[others].equal(near[others])
    assert plan[17, 0, 0] == 0
    assert_plans_agree(plan[[3, 17]], oracle(cost, a, b)[[3, 17]], within=1e-4)


def test_exponents_at_the_edge_of_reach_are_still_exact():
    cost, a, b = draw_problems(16, 9, 9)
    low, high = cost.amin(dim=(1, 2), keepdim=True), cost.amax(dim=(1, 2), keepdim=True)
    edge = 39.9 * 0.1 * (cost - low) / (high - low)
    for iterations in (1, 20, 500):
        plan = sinkhorn_plan(edge, a, b, epsilon=0.1, iterations=iterations)
        assert_plans_agree(plan, oracle(edge, a, b, iterations=iterations), within=5e-5)


def test_what_stands_in_padding_never_matters():
    cost, a, b = draw_problems(20, 9, 9)
    clean = sinkhorn_plan(cost, a, b, epsilon=0.1)
    padding = (a == 0).unsqueeze(2) | (b == 0).unsqueeze(1)
    for junk in (1e30, -1e30, math.inf, -math.inf, math.nan):
        plan = sinkhorn_plan(cost.masked_fill(padding, junk), a, b, epsilon=0.1)
        assert plan.equal(clean)
        assert plan[padding].eq(0).all()


def test_strides_and_broadcast_dimensions_change_nothing():
    cost, a, b = draw_problems(24, 7, 5)
    a, b = a[:1], b[:1]
    expected = sinkhorn_plan(cost, a.expand(24, -1).contiguous(), b.expand(24, -1).contiguous(), epsilon=0.1)
    turned = cost.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert sinkhorn_plan(turned, a, b, epsilon=0.1).equal(expected)
    sparse = torch.randn(48, 14, 5)
    sparse[::2, ::2] = cost
    assert sinkhorn_plan(sparse[::2, ::2], a, b, epsilon=0.1).equal(expected)
    grid = sinkhorn_plan(cost.view(4, 6, 7, 5), a.view(1, 1, 7), b.view(1, 1, 5), epsilon=0.1)
    assert grid.equal(expected.view(4, 6, 7, 5))
    assert sinkhorn_plan(cost[0], a[0], b[0], epsilon=0.1).equal(expected[0])


def test_no_problems_have_no_plans(unit_rows):
    assert sinkhorn_plan(torch.empty(0, 3, 4), torch.empty(0, 3), torch.empty(0, 4), epsilon=0.1).shape == (0, 3, 4)
    texts, mask = unit_rows(3, 4, 8).float(), torch.ones(3, 4, dtype=torch.bool)
    assert emd_scores(torch.empty(0, 5, 8), texts, mask).shape == (0, 3)


@pytest.mark.parametrize("images", [1, 5, 16, 33])
@pytest.mark.parametrize("block", [1, 2**17])
def test_scores_are_those_in_float64_for_few_images_and_many(unit_rows, images, block, monkeypatch):
    monkeypatch.setattr(compiled_sinkhorn, "_BLOCK_ELEMENTS", block)
    crops, texts = unit_rows(images, 5, 24), unit_rows(21, 4, 24, seed=1)
    mask = torch.rand(21, 4, generator=torch.Generator().manual_seed(2)) > 0.3
    mask[:, 2] = True
    weights = {
        "crop_weights": torch.rand(images, 5, generator=torch.Generator().manual_seed(3)),
        "text_weights": torch.rand(21, 4, generator=torch.Generator().manual_seed(4)),
    }
    junk = torch.where(mask.unsqueeze(-1), texts, torch.nan).float()
    for epsilon in (0.1, 0.01):
        scores = emd_scores(crops.float(), junk, mask, epsilon=epsilon, **weights)
        assert scores.dtype == torch.float32
        expected = emd_scores(crops, texts, mask, epsilon=epsilon, **weights)
        torch.testing.assert_close(scores.double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("thread_count", [1, 2, 3])
def test_callers_side_by_side_get_what_one_gets(unit_rows, thread_count):
    crops, texts = unit_rows(33, 9, 32).float(), unit_rows(300, 9, 32, seed=1).float()
    mask = torch.ones(300, 9, dtype=torch.bool)
    problems = draw_problems(2000, 9, 9)
    scores, plan = emd_scores(crops, texts, mask), sinkhorn_plan(*problems, epsilon=0.1)
    torch.set_num_threads(thread_count)

    def both(_):
        return emd_scores(crops, texts, mask), sinkhorn_plan(*problems, epsilon=0.1)

    with ThreadPoolExecutor(4) as callers:
        for again, plan_again in callers.map(both, range(8)):
            # A product of matrices may round otherwise when it has a core to itself.
            torch.testing.assert_close(again, scores, atol=1e-6, rtol=0)
            assert plan_again.equal(plan)
    assert torch.get_num_threads() == thread_count


def test_scores_can_be_computed_by_threads_and_kept_in_inference_mode(unit_rows, monkeypatch):
    monkeypatch.setattr(compiled_sinkhorn, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(compiled_soft, "_BLOCK_ELEMENTS", 1)
    crops, texts = unit_rows(3, 4, 8).float(), unit_rows(40, 4, 8, seed=1).float()
    mask = torch.ones(40, 4, dtype=torch.bool)
    matches = (lambda x, t: emd_scores(x, t, mask, epsilon=0.005), lambda x, t: soft_match(x, t, mask))
    alone = [match(crops, texts) for match in matches]
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "_pools", {})
    for match, expected in zip(matches, alone, strict=True):
        threads._pools.clear()
        with torch.inference_mode():
            inside = match(crops.clone(), texts.clone())
        assert threads._pools, "the threads had no part in it"
        torch.testing.assert_close(inside, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("images", [1, 3, 15, 16, 100])
@pytest.mark.parametrize("crops", [1, 9, 60, 200])
@pytest.mark.parametrize("texts", [1, 9, 50, 3000])
def test_a_block_is_small_or_sixteen_problems(images, crops, texts):
    some, classes = compiled_sinkhorn._block_size(images, crops, texts)
    assert some * classes >= 16
    assert some * classes * crops * texts <= max(2**17, 16 * crops * texts)


def test_masses_of_any_size_have_the_same_plan():
    cost, a, b = draw_problems(20, 9, 9)
    expected = oracle(cost, a, b)
    for mass in (1e-36, 1e-10, 1e10, 1e30):
        plan = sinkhorn_plan(cost, a * mass, b * mass, epsilon=0.1)
        assert_plans_agree(plan / mass, expected)
    mass = torch.tensor(10.0).pow(torch.linspace(-30, 30, 20)).unsqueeze(1)
    plan = sinkhorn_plan(cost, a * mass, b * mass, epsilon=0.1)
    assert_plans_agree(plan / mass.unsqueeze(2), expected)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-6, 1e-8])
def test_columns_sum_to_their_weights_however_small_epsilon_is(unit_rows, epsilon):
    cost, a, b = draw_problems(20, 9, 9)
    plan = sinkhorn_plan(cost, a, b, epsilon=epsilon)
    assert (plan.sum(dim=1) - b).abs().max() < 1e-6
    crops, texts, mask = unit_rows(3, 9, 64).float(), unit_rows(5, 9, 64, seed=1).float(), torch.ones(5, 9).bool()
    # Plans of cosines in float32 are not those of cosines in float64 here, but they are about as good.
    scores = emd_scores(crops, texts, mask, epsilon=epsilon)
    assert (scores - emd_scores(crops.double(), texts.double(), mask, epsilon=epsilon)).abs().max() < 1e-3


def test_a_small_epsilon_reaches_the_best_assignment(unit_rows):
    crops, texts = unit_rows(17, 6, 16).float(), unit_rows(3, 6, 16, seed=1).float()
    scores = emd_scores(crops, texts, torch.ones(3, 6, dtype=torch.bool), epsilon=1e-3, iterations=2000)
    for image in (0, 16):
        for c in range(3):
            similarity = (crops[image] @ texts[c].T).numpy()
            best = similarity[linear_sum_assignment(similarity, maximize=True)].mean()
            assert scores[image, c].item() == pytest.approx(best, abs=5e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    images=st.sampled_from([1, 2, 17]),
    crops=st.integers(1, 6),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    epsilon=st.sampled_from([0.02, 0.1, 0.5, 1e3]),
)
def test_order_and_padding_never_matter_and_no_score_is_below_the_mean(seed, images, crops, counts, epsilon):
    draw = torch.Generator().manual_seed(seed)
    classes, widest = len(counts), max(counts)
    x = torch.nn.functional.normalize(torch.randn(images, crops, 6, generator=draw), dim=-1)
    t = torch.nn.functional.normalize(torch.randn(classes, widest, 6, generator=draw), dim=-1)
    mask = torch.arange(widest) < torch.tensor(counts).unsqueeze(1)
    scores = emd_scores(x, t, mask, epsilon=epsilon, iterations=200)
    for c, count in enumerate(counts):
        alone = emd_scores(x, t[c : c + 1, :count], mask[c : c + 1, :count], epsilon=epsilon, iterations=200)
        torch.testing.assert_close(scores[:, c : c + 1], alone, atol=1e-5, rtol=0)
    rows, columns = torch.randperm(crops, generator=draw), torch.randperm(widest, generator=draw)
    shuffled = emd_scores(x[:, rows], t[:, columns], mask[:, columns], epsilon=epsilon, iterations=200)
    torch.testing.assert_close(shuffled, scores, atol=1e-5, rtol=0)
    mean = mean_cosine(x, t, mask)
    assert (scores >= mean - 2e-4 * (1 if epsilon < 0.1 else 0.05)).all()
    if epsilon == 1e3:
        torch.testing.assert_close(scores, mean, atol=1e-3, rtol=0)
