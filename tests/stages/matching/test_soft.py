from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.matching.soft import soft_match


@pytest.fixture(params=[torch.float32, torch.float64], ids=["compiled", "torch"])
def dtype(request):
    return request.param


def dense(features, texts, mask, temperature=0.03, equal_mass=False, shift=0.0):
    """The formula as it is printed, with every similarity in memory, in float64; and the sum of |p s|."""
    s = torch.einsum("bfd,cmd->bfcm", features.double(), texts.double()) / temperature
    prior = -mask.sum(dim=1).double().log() if equal_mass else torch.zeros(len(mask), dtype=torch.float64)
    logit = (s + prior[:, None]).masked_fill(~mask, -torch.inf)
    p = logit.flatten(2).softmax(dim=-1).view_as(s)
    s = s + shift / temperature
    return (p * s).sum(dim=(1, 3)), (p * s).abs().sum(dim=(1, 2, 3))


def full(classes: int, texts: int) -> torch.Tensor:
    return torch.ones(classes, texts, dtype=torch.bool)


@pytest.mark.parametrize(("temperature", "logits"), [(0.03, [5.341, 4.227]), (1.0, [0.1247, 0.1391])])
def test_the_worked_example_of_one_crop_and_two_classes(rows_with_cosines, dtype, temperature, logits):
    features, texts, mask = rows_with_cosines([[[0.30, 0.20]], [[0.28, 0.27]]])
    found = soft_match(features.to(dtype), texts.to(dtype), mask, temperature=temperature)
    assert found[0].tolist() == pytest.approx(logits, abs=6e-4)


def test_the_worked_example_with_a_description_more_gives_each_class_equal_mass(rows_with_cosines, dtype):
    features, texts, mask = rows_with_cosines([[[0.30, 0.20, 0.0]], [[0.28, 0.27, 0.27]]])
    mask[0, 2] = False
    found = soft_match(features.to(dtype), texts.to(dtype), mask)
    assert found[0].tolist() == pytest.approx([5.479, 4.072], abs=6e-4)


def test_equal_counts_with_padding_follow_the_published_rule(rows_with_cosines, dtype):
    features, texts, mask = rows_with_cosines([[[0.30, 0.20, 0.9]], [[0.28, 0.27, 0.9]]])
    mask[:, 2] = False
    found = soft_match(features.to(dtype), texts.to(dtype), mask)
    assert found[0].tolist() == pytest.approx([5.341, 4.227], abs=6e-4)


def test_duplicating_every_description_of_a_class_changes_nothing(unit_rows, dtype):
    features, texts = unit_rows(2, 6, 8, dtype=dtype), unit_rows(3, 4, 8, seed=1, dtype=dtype)
    twice = torch.cat([texts, texts], dim=1)
    mask = full(3, 8)
    mask[1:, 4:] = False
    once = soft_match(features, texts, full(3, 4))
    torch.testing.assert_close(soft_match(features, twice, mask), once, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(soft_match(features, twice, mask, prior="equal"), once, atol=1e-5, rtol=1e-5)
    unequal = soft_match(features, twice, mask, prior="none")
    assert (unequal[:, 0].abs() > once[:, 0].abs()).all()


def test_with_equal_counts_all_priors_are_the_same(unit_rows, dtype):
    features, texts = unit_rows(2, 6, 8, dtype=dtype), unit_rows(3, 4, 8, seed=1, dtype=dtype)
    expected = soft_match(features, texts, full(3, 4))
    for prior in ("none", "equal"):
        torch.testing.assert_close(soft_match(features, texts, full(3, 4), prior=prior), expected, atol=1e-5, rtol=1e-5)


def test_a_shift_moves_what_a_share_multiplies_and_no_share(rows_with_cosines, unit_rows, dtype):
    features, texts, mask = (tensor.to(dtype) for tensor in rows_with_cosines([[[-0.1, -0.5]], [[-0.2, -0.6]]]))
    found = soft_match(features, texts, mask.bool(), shift=1.0)
    assert found.min() >= 0
    features, texts = unit_rows(2, 6, 8, dtype=dtype), unit_rows(3, 4, 8, seed=1, dtype=dtype)
    expected, _ = dense(features, texts, full(3, 4), temperature=0.2, shift=0.7)
    found = soft_match(features, texts, full(3, 4), temperature=0.2, shift=0.7)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)


def test_votes_of_rows_add_up(unit_rows, dtype):
    features, texts = unit_rows(2, 7, 8, dtype=dtype), unit_rows(3, 4, 8, seed=1, dtype=dtype)
    apart = soft_match(features[:, :3], texts, full(3, 4)) + soft_match(features[:, 3:], texts, full(3, 4))
    torch.testing.assert_close(soft_match(features, texts, full(3, 4)), apart, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("budget", [1, 2 * 4 * 5 * 16, 2**20])
@pytest.mark.parametrize("texts_a_class", [1, 5, 16, 35])
def test_blocks_of_any_size_equal_the_dense_formula(unit_rows, dtype, budget, texts_a_class, monkeypatch):
    features, texts = unit_rows(5, 4, 8), unit_rows(7, texts_a_class, 8, seed=1)
    expected, _ = dense(features, texts, full(7, texts_a_class))
    monkeypatch.setattr("stages.matching.soft._BLOCK_ELEMENTS", {"cpu": budget, "cuda": budget})
    monkeypatch.setattr("stages.matching.compiled_soft._BLOCK_ELEMENTS", budget)
    monkeypatch.setattr("stages.matching.compiled_soft._ROWS", budget)
    found = soft_match(features.to(dtype), texts.to(dtype), full(7, texts_a_class))
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=1e-5)


def test_threads_share_blocks_and_callers_share_threads(unit_rows):
    features, texts = unit_rows(3, 20, 16).float(), unit_rows(90, 7, 16, seed=1).float()
    alone = soft_match(features, texts, full(90, 7))
    torch.set_num_threads(2)
    with ThreadPoolExecutor(4) as callers:
        for again in callers.map(lambda _: soft_match(features, texts, full(90, 7)), range(8)):
            torch.testing.assert_close(again, alone, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("towards", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("temperature", [0.01, 0.03, 1.0])
def test_float32_keeps_close_to_float64_for_cosines_near_one_and_minus_one(unit_rows, towards, temperature):
    features = unit_rows(2, 10, 16, towards=towards, dtype=torch.float32)
    texts = unit_rows(20, 5, 16, seed=1, towards=abs(towards), dtype=torch.float32)
    expected, size = dense(features, texts, full(20, 5), temperature)
    logits = soft_match(features, texts, full(20, 5), temperature=temperature)
    assert ((logits - expected).abs() / size[:, None]).max() < 1e-4


def test_a_later_and_much_surer_description_takes_the_vote_from_earlier_blocks(dtype, monkeypatch):
    monkeypatch.setattr("stages.matching.soft._BLOCK_ELEMENTS", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr("stages.matching.compiled_soft._BLOCK_ELEMENTS", 1)
    features = torch.tensor([[[1.0, 0.0]]], dtype=dtype)
    texts = torch.tensor([[[-1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]], dtype=dtype)
    logits = soft_match(features, texts, full(3, 1), temperature=0.01)
    assert logits[0].tolist() == pytest.approx([0.0, 0.0, 100.0], abs=1e-4)


def test_half_precision_features_are_matched_in_float32(unit_rows):
    features, texts = unit_rows(2, 4, 8).half(), unit_rows(3, 5, 8, seed=1).half()
    logits = soft_match(features, texts, full(3, 5))
    assert logits.dtype == torch.float32
    expected, _ = dense(features, texts, full(3, 5))
    torch.testing.assert_close(logits.double(), expected, atol=1e-3, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    crops=st.integers(1, 5),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    prior=st.sampled_from(["auto", "none", "equal"]),
)
def test_order_and_padding_never_matter(seed, crops, counts, dtype, prior):
    draw = torch.Generator().manual_seed(seed)
    classes, widest = len(counts), max(counts)
    x = torch.nn.functional.normalize(torch.randn(2, crops, 6, generator=draw, dtype=dtype), dim=-1)
    t = torch.nn.functional.normalize(torch.randn(classes, widest, 6, generator=draw, dtype=dtype), dim=-1)
    mask = torch.arange(widest) < torch.tensor(counts).unsqueeze(1)
    expected, _ = dense(x, t, mask, equal_mass=prior != "none")
    within = {"atol": 3e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(soft_match(x, t, mask, prior=prior).double(), expected, **within)

    for junk in (torch.nan, torch.inf):
        padded = torch.where(mask.unsqueeze(-1), t, junk)
        torch.testing.assert_close(soft_match(x, padded, mask, prior=prior).double(), expected, **within)

    rows, columns = torch.randperm(crops, generator=draw), torch.randperm(widest, generator=draw)
    order = torch.randperm(classes, generator=draw)
    shuffled = soft_match(x[:, rows], t[order][:, columns], mask[order][:, columns], prior=prior)
    torch.testing.assert_close(shuffled.double(), expected[:, order], **within)


def test_no_gradients_flow_and_tensors_that_want_some_are_welcome(unit_rows, dtype):
    features, texts = unit_rows(2, 4, 8, dtype=dtype), unit_rows(3, 5, 8, seed=1, dtype=dtype)
    logits = soft_match(features.clone().requires_grad_(), texts.clone().requires_grad_(), full(3, 5))
    assert not logits.requires_grad
    assert logits.equal(soft_match(features, texts, full(3, 5)))


def test_wrong_settings_are_refused_with_what_would_be_right(unit_rows):
    with pytest.raises(ValueError, match="temperature is 0; it must be above 0"):
        soft_match(unit_rows(1, 2, 4), unit_rows(2, 2, 4), full(2, 2), temperature=0)
    with pytest.raises(ValueError, match="temperature is nan; it must be above 0"):
        soft_match(unit_rows(1, 2, 4), unit_rows(2, 2, 4), full(2, 2), temperature=torch.nan)
    with pytest.raises(ValueError, match=r"features \[1, 0, 4\] have no rows"):
        soft_match(unit_rows(1, 2, 4)[:, :0], unit_rows(2, 2, 4), full(2, 2))
    with pytest.raises(ValueError, match=r"no text for class number \[0\]"):
        soft_match(unit_rows(1, 2, 4), unit_rows(2, 2, 4), torch.tensor([[False, False], [True, False]]))
    with pytest.raises(ValueError, match="prior is 'flat'; it must be 'auto', 'none' or 'equal'"):
        soft_match(unit_rows(1, 2, 4), unit_rows(2, 2, 4), full(2, 2), prior="flat")
