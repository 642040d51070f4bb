"""Plans and shares that somebody looks at: they add up to what the methods score by, which never holds them."""

from __future__ import annotations

import pytest
import torch

from stages.matching.sinkhorn import emd_plans, emd_scores
from stages.matching.soft import soft_match, soft_shares

MASK = torch.tensor([[True] * 4, [True, True, False, False], [True, True, True, False]])


def cosines(crops, texts):
    return torch.einsum("bnd,cmd->bcnm", crops, texts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", ["ours", "pot", "exact"])
def test_plans_carry_each_text_s_weight_and_make_the_score(unit_rows, dtype, solver):
    crops, texts = unit_rows(2, 5, 8, dtype=dtype), unit_rows(3, 4, 8, seed=1, dtype=dtype)
    settings = {
        "crop_weights": torch.rand(2, 5, generator=torch.Generator().manual_seed(2)) + 0.1,
        "text_weights": torch.rand(3, 4, generator=torch.Generator().manual_seed(3)) + 0.1,
        "solver": solver,
    }
    plans = emd_plans(crops, texts, MASK, **settings)
    assert (plans >= 0).all()
    assert (plans.transpose(-1, -2)[:, ~MASK] == 0).all()
    weights = settings["text_weights"].to(dtype) * MASK
    weights = weights / weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(plans.sum(dim=2), weights.expand(2, 3, 4), atol=1e-6, rtol=1e-5)
    scores = (plans * cosines(crops, texts)).sum(dim=(-2, -1))
    torch.testing.assert_close(scores, emd_scores(crops, texts, MASK, **settings), atol=1e-6, rtol=1e-5)


def test_the_plan_of_the_worked_example(rows_with_cosines):
    crops, texts, mask = rows_with_cosines([[[0.30, 0.20], [0.22, 0.28]], [[0.30, 0.24], [0.29, 0.21]]])
    plan = emd_plans(crops, texts, mask)[0, 0]
    assert plan[0, 0].item() == pytest.approx(0.34499, abs=1e-5)
    torch.testing.assert_close(plan, plan.T)


@pytest.mark.parametrize(("temperature", "shift", "prior"), [(0.03, 0.0, "auto"), (0.3, 0.4, "none")])
def test_shares_of_a_row_sum_to_one_over_all_classes_and_make_the_logits(unit_rows, temperature, shift, prior):
    rows, texts = unit_rows(2, 5, 8, dtype=torch.float32), unit_rows(3, 4, 8, seed=1, dtype=torch.float32)
    texts[~MASK] = torch.nan  # what stands in a masked row does not matter
    shares = soft_shares(rows, texts, MASK, temperature=temperature, prior=prior)
    assert shares.shape == (2, 5, 3, 4)
    torch.testing.assert_close(shares.sum(dim=(2, 3)), torch.ones(2, 5))
    assert (shares[:, :, ~MASK] == 0).all()
    parts = shares * (torch.einsum("bfd,cmd->bfcm", rows, texts.nan_to_num()) + shift) / temperature
    logits = soft_match(rows, texts.nan_to_num(), MASK, temperature=temperature, shift=shift, prior=prior)
    torch.testing.assert_close(parts.sum(dim=(1, 3)), logits, atol=1e-4, rtol=1e-5)


def test_the_shares_of_the_worked_example(rows_with_cosines):
    rows, texts, mask = rows_with_cosines([[[0.30, 0.20]], [[0.28, 0.27]]])
    assert soft_shares(rows, texts, mask).flatten().tolist() == pytest.approx(
        [0.5217, 0.0186, 0.2678, 0.1919], abs=1e-4
    )


def test_a_temperature_of_zero_is_refused(unit_rows):
    with pytest.raises(ValueError, match="temperature is 0"):
        soft_shares(unit_rows(1, 2, 4), unit_rows(2, 2, 4), torch.ones(2, 2).bool(), temperature=0)
