from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from stages.matching.pooling import mean_cosine
from stages.matching.sinkhorn import emd_scores, sinkhorn_plan

SUMMARY_EXAMPLE = [[[0.30, 0.20], [0.22, 0.28]], [[0.30, 0.24], [0.29, 0.21]]]


def random_cost(*shape: int, seed: int = 0, spread: float = 0.3) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


def uniform(*shape: int) -> torch.Tensor:
    return torch.full(shape, 1 / shape[-1], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("epsilon", "score_a", "score_b"),
    [(0.1, 0.26520, 0.26025), (0.01, 0.28997, 0.26231), (1e-3, 0.29, 0.265)],
)
def test_the_worked_example_of_two_crops_and_two_descriptions(rows_with_cosines, dtype, epsilon, score_a, score_b):
    crops, texts, mask = rows_with_cosines(SUMMARY_EXAMPLE)
    scores = emd_scores(crops.to(dtype), texts.to(dtype), mask, epsilon=epsilon, iterations=2000)
    assert scores[0].tolist() == pytest.approx([score_a, score_b], abs=6e-6)
    assert mean_cosine(crops, texts, mask)[0].tolist() == pytest.approx([0.25, 0.26])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
def test_a_two_by_two_plan_has_its_closed_form(epsilon, dtype):
    similarity = torch.tensor([[0.30, 0.20], [0.22, 0.28]], dtype=torch.float64)
    # Near an assignment the iterations gain a factor of only .997 a step.
    cost, half = (1 - similarity).to(dtype), uniform(2).to(dtype)
    plan = sinkhorn_plan(cost, half, half, epsilon=epsilon, iterations=8000)
    gain = similarity[0, 0] + similarity[1, 1] - similarity[0, 1] - similarity[1, 0]
    t = 0.5 / (1 + math.exp(-gain / (2 * epsilon)))
    expected = torch.tensor([[t, 0.5 - t], [0.5 - t, t]], dtype=torch.float64)
    within = 2e-5 if dtype == torch.float32 else 1e-7
    torch.testing.assert_close(plan.double(), expected, atol=within, rtol=0)


def test_twenty_steps_are_enough_at_the_default_epsilon(unit_rows):
    # In 400 dimensions the cosines of random rows have a standard deviation of .05, about that of CLIP's.
    crops, texts = unit_rows(3, 9, 400), unit_rows(4, 9, 400, seed=1)
    mask = torch.ones(4, 9, dtype=torch.bool)
    twenty = emd_scores(crops, texts, mask)
    many = emd_scores(crops, texts, mask, iterations=2000)
    assert (twenty - many).abs().max() < 1e-6


def test_a_batch_of_plans_equals_pot_one_by_one():
    cost = random_cost(2, 3, 7, 5)
    a = torch.softmax(random_cost(2, 1, 7, seed=1), dim=-1)
    b = torch.softmax(random_cost(1, 3, 5, seed=2), dim=-1)
    plan = sinkhorn_plan(cost, a, b, epsilon=0.05, iterations=500)
    for i in range(2):
        for c in range(3):
            oracle = ot.sinkhorn(
                a[i, 0].numpy(), b[0, c].numpy(), cost[i, c].numpy(), reg=0.05, numItermax=5000, stopThr=1e-12
            )
            np.testing.assert_allclose(plan[i, c].numpy(), oracle, atol=1e-9)


@pytest.mark.parametrize(("crops", "texts"), [(6, 6), (7, 4)])
def test_a_small_epsilon_reaches_the_exact_transport(crops, texts):
    cost = random_cost(crops, texts, seed=3)
    plan = sinkhorn_plan(cost, uniform(crops), uniform(texts), epsilon=1e-3, iterations=3000)
    exact = ot.emd2(uniform(crops).numpy(), uniform(texts).numpy(), cost.numpy())
    assert (plan * cost).sum().item() == pytest.approx(exact, abs=5e-4)


def test_a_small_epsilon_reaches_the_best_assignment_in_float32_too(unit_rows):
    crops, texts = unit_rows(1, 8, 16), unit_rows(3, 8, 16, seed=1)
    scores = emd_scores(crops.float(), texts.float(), torch.ones(3, 8, dtype=torch.bool), epsilon=1e-3, iterations=3000)
    for c in range(3):
        similarity = (crops[0] @ texts[c].T).numpy()
        best = similarity[linear_sum_assignment(similarity, maximize=True)].mean()
        assert scores[0, c].item() == pytest.approx(best, abs=5e-4)


def test_a_large_epsilon_gives_the_mean_of_all_cosines(unit_rows):
    crops, texts = unit_rows(2, 5, 8), unit_rows(3, 4, 8, seed=1)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    scores = emd_scores(crops, texts, mask, epsilon=1e3)
    torch.testing.assert_close(scores, mean_cosine(crops, texts, mask), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("crops", "texts"), [(1, 5), (5, 1), (1, 1)])
def test_one_crop_or_one_text_leaves_nothing_to_decide(unit_rows, crops, texts):
    x, t = unit_rows(2, crops, 8), unit_rows(3, texts, 8, seed=1)
    expected = torch.einsum("bnd,cmd->bcnm", x, t).mean(dim=(2, 3))
    torch.testing.assert_close(emd_scores(x, t, torch.ones(3, texts, dtype=torch.bool)), expected)


def test_a_plan_has_its_marginals():
    a = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    b = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    plan = sinkhorn_plan(random_cost(3, 4), a, b, epsilon=0.05, iterations=500)
    torch.testing.assert_close(plan.sum(dim=1), a)
    torch.testing.assert_close(plan.sum(dim=0), b)


def test_a_weight_of_zero_is_as_if_its_row_and_column_were_not_there():
    cost = random_cost(4, 5)
    small = sinkhorn_plan(cost[:3, :4], uniform(3), uniform(4), epsilon=0.02)
    for junk in (7.0, math.inf, math.nan):
        padded = cost.clone()
        padded[3], padded[:, 4] = junk, junk
        a = torch.cat([uniform(3), torch.zeros(1)])
        b = torch.cat([uniform(4), torch.zeros(1)])
        plan = sinkhorn_plan(padded, a, b, epsilon=0.02)
        assert plan[3].eq(0).all()
        assert plan[:, 4].eq(0).all()
        torch.testing.assert_close(plan[:3, :4], small)


def test_a_tolerance_stops_early_and_only_when_the_rows_agree():
    cost, a, b = random_cost(6, 6), uniform(6), uniform(6)
    loose = sinkhorn_plan(cost, a, b, epsilon=0.05, iterations=500, tolerance=1e-4)
    exact = sinkhorn_plan(cost, a, b, epsilon=0.05, iterations=500)
    assert (loose.sum(dim=1) - a).abs().max() <= 1e-4
    assert 0 < (loose - exact).abs().max() < 1e-3


def test_given_marginals_weigh_crops_and_texts_whatever_their_sum(unit_rows):
    crops, texts = unit_rows(1, 3, 8), unit_rows(1, 2, 8, seed=1)
    mask = torch.ones(1, 2, dtype=torch.bool)
    # All weight on one crop and one text leaves their cosine.
    only = {"crop_weights": torch.tensor([[0.0, 5.0, 0.0]]), "text_weights": torch.tensor([[0.0, 2.0]])}
    assert emd_scores(crops, texts, mask, **only).item() == pytest.approx((crops[0, 1] @ texts[0, 1]).item())
    same = emd_scores(crops, texts, mask, crop_weights=torch.full((1, 3), 4.0))
    torch.testing.assert_close(same, emd_scores(crops, texts, mask))


def test_blocks_of_classes_change_nothing(unit_rows, monkeypatch):
    crops, texts = unit_rows(2, 5, 8), unit_rows(7, 4, 8, seed=1)
    mask = torch.ones(7, 4, dtype=torch.bool)
    whole = emd_scores(crops, texts, mask)
    for budget in (1, 2 * 5 * 4 * 3):
        monkeypatch.setattr("stages.matching.sinkhorn._BLOCK_ELEMENTS", {"cpu": budget, "cuda": budget})
        torch.testing.assert_close(emd_scores(crops, texts, mask), whole)


def test_half_precision_features_are_matched_in_float32(unit_rows):
    crops, texts = unit_rows(2, 5, 8).half(), unit_rows(3, 4, 8, seed=1).half()
    mask = torch.ones(3, 4, dtype=torch.bool)
    scores = emd_scores(crops, texts, mask)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), emd_scores(crops.double(), texts.double(), mask), atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    crops=st.integers(1, 6),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    epsilon=st.sampled_from([0.02, 0.1, 0.5]),
)
def test_order_and_padding_never_matter_and_the_score_is_never_below_the_mean(seed, crops, counts, epsilon):
    draw = torch.Generator().manual_seed(seed)
    classes, widest = len(counts), max(counts)
    x = torch.nn.functional.normalize(torch.randn(2, crops, 6, generator=draw, dtype=torch.float64), dim=-1)
    t = torch.nn.functional.normalize(torch.randn(classes, widest, 6, generator=draw, dtype=torch.float64), dim=-1)
    mask = torch.arange(widest) < torch.tensor(counts).unsqueeze(1)
    scores = emd_scores(x, t, mask, epsilon=epsilon, iterations=300)

    for c, count in enumerate(counts):
        alone = emd_scores(x, t[c : c + 1, :count], mask[c : c + 1, :count], epsilon=epsilon, iterations=300)
        torch.testing.assert_close(scores[:, c : c + 1], alone, atol=1e-9, rtol=0)

    rows, columns = torch.randperm(crops, generator=draw), torch.randperm(widest, generator=draw)
    shuffled = emd_scores(x[:, rows], t[:, columns], mask[:, columns], epsilon=epsilon, iterations=300)
    torch.testing.assert_close(shuffled, scores, atol=1e-6, rtol=0)

    assert (scores >= mean_cosine(x, t, mask) - 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradients_flow_and_tensors_that_want_some_are_welcome(unit_rows, dtype):
    cost, a, b = (tensor.to(dtype) for tensor in (random_cost(3, 2, 2), uniform(2), uniform(2)))
    wanting = [tensor.clone().requires_grad_() for tensor in (cost, a, b)]
    plan = sinkhorn_plan(*wanting, epsilon=0.1)
    assert not plan.requires_grad
    assert plan.equal(sinkhorn_plan(cost, a, b, epsilon=0.1))
    crops, texts, mask = unit_rows(2, 3, 8).to(dtype), unit_rows(4, 3, 8, seed=1).to(dtype), torch.ones(4, 3).bool()
    scores = emd_scores(crops.clone().requires_grad_(), texts.clone().requires_grad_(), mask)
    assert not scores.requires_grad
    assert scores.equal(emd_scores(crops, texts, mask))


def test_wrong_settings_are_refused_with_what_would_be_right(unit_rows):
    cost, a, b = random_cost(2, 2), uniform(2), uniform(2)
    with pytest.raises(ValueError, match="epsilon is 0; it must be above 0"):
        sinkhorn_plan(cost, a, b, epsilon=0)
    with pytest.raises(ValueError, match="epsilon is nan; it must be above 0"):
        sinkhorn_plan(cost, a, b, epsilon=math.nan)
    with pytest.raises(ValueError, match="at least 1"):
        sinkhorn_plan(cost, a, b, epsilon=0.1, iterations=0)
    for wrong in (2 * b, b * math.inf, b * math.nan):
        with pytest.raises(ValueError, match="same positive mass"):
            sinkhorn_plan(cost, a, wrong, epsilon=0.1)
    for sides in ((a[:1] * 2, b), (a, b[:1] * 2)):
        with pytest.raises(ValueError, match="a cost of 2 rows and 2 columns needs one for each"):
            sinkhorn_plan(cost, *sides, epsilon=0.1)
    crops, texts, mask = unit_rows(1, 2, 4), unit_rows(2, 2, 4), torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"no text for class number \[1\]"):
        emd_scores(crops, texts, torch.tensor([[True, True], [False, False]]))
    with pytest.raises(ValueError, match=r"crop_weights of row number \[0\] are negative"):
        emd_scores(crops, texts, mask, crop_weights=torch.tensor([[2.0, -1.0]]))
    for wrong in (math.inf, math.nan):
        with pytest.raises(ValueError, match=r"crop_weights of row number \[0\] are negative, not finite"):
            emd_scores(crops, texts, mask, crop_weights=torch.tensor([[2.0, wrong]]))
    with pytest.raises(ValueError, match=r"text_weights of row number \[1\] .* sum to 0"):
        emd_scores(crops, texts, mask, text_weights=torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="solver is 'magic'; it must be 'ours', 'pot' or 'exact'"):
        emd_scores(crops, texts, mask, solver="magic")
