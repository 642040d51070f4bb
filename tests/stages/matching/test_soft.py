from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.matching.soft import soft_match


def dense(features, texts, mask, temperature=0.03, equal_mass=False):
    """The formula as it is printed, with every similarity in memory, in float64; and the sum of |p s|."""
    s = torch.einsum("bfd,cmd->bfcm", features.double(), texts.double()) / temperature
    prior = -mask.sum(dim=1).double().log() if equal_mass else torch.zeros(len(mask), dtype=torch.float64)
    logit = (s + prior[:, None]).masked_fill(~mask, -torch.inf)
    p = logit.flatten(2).softmax(dim=-1).view_as(s)
    return (p * s).sum(dim=(1, 3)), (p * s).abs().sum(dim=(1, 2, 3))


def full(classes: int, texts: int) -> torch.Tensor:
    return torch.ones(classes, texts, dtype=torch.bool)


@pytest.mark.parametrize(("temperature", "logits"), [(0.03, [5.341, 4.227]), (1.0, [0.1247, 0.1391])])
def test_the_worked_example_of_one_crop_and_two_classes(rows_with_cosines, temperature, logits):
    example = rows_with_cosines([[[0.30, 0.20]], [[0.28, 0.27]]])
    assert soft_match(*example, temperature=temperature)[0].tolist() == pytest.approx(logits, abs=6e-4)


def test_the_worked_example_with_a_description_more_gives_each_class_equal_mass(rows_with_cosines):
    features, texts, mask = rows_with_cosines([[[0.30, 0.20, 0.0]], [[0.28, 0.27, 0.27]]])
    mask[0, 2] = False
    assert soft_match(features, texts, mask)[0].tolist() == pytest.approx([5.479, 4.072], abs=6e-4)


def test_equal_counts_with_padding_follow_the_published_rule(rows_with_cosines):
    features, texts, mask = rows_with_cosines([[[0.30, 0.20, 0.9]], [[0.28, 0.27, 0.9]]])
    mask[:, 2] = False
    assert soft_match(features, texts, mask)[0].tolist() == pytest.approx([5.341, 4.227], abs=6e-4)


def test_duplicating_every_description_of_a_class_changes_nothing(unit_rows):
    features, texts = unit_rows(2, 6, 8), unit_rows(3, 4, 8, seed=1)
    twice = torch.cat([texts, texts], dim=1)
    mask = full(3, 8)
    mask[1:, 4:] = False
    torch.testing.assert_close(soft_match(features, twice, mask), soft_match(features, texts, full(3, 4)))


@pytest.mark.parametrize("block", [None, 1, 2, 3, 100])
def test_streaming_in_any_blocks_equals_the_dense_formula(unit_rows, block):
    features, texts = unit_rows(3, 4, 8), unit_rows(7, 5, 8, seed=1)
    expected, _ = dense(features, texts, full(7, 5))
    torch.testing.assert_close(soft_match(features, texts, full(7, 5), block=block), expected)


def test_images_taken_apart_by_the_memory_budget_give_the_same_logits(unit_rows, monkeypatch):
    features, texts = unit_rows(5, 4, 8), unit_rows(3, 5, 8, seed=1)
    expected, _ = dense(features, texts, full(3, 5))
    for budget in (1, 2 * 4 * 5 * 16):
        monkeypatch.setattr("stages.matching.soft._BLOCK_ELEMENTS", {"cpu": budget, "cuda": budget})
        torch.testing.assert_close(soft_match(features, texts, full(3, 5)), expected)


@pytest.mark.parametrize("towards", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("temperature", [0.01, 0.03, 1.0])
def test_float32_keeps_close_to_float64_for_cosines_near_one_and_minus_one(unit_rows, towards, temperature):
    features = unit_rows(2, 10, 16, towards=towards, dtype=torch.float32)
    texts = unit_rows(20, 5, 16, seed=1, towards=abs(towards), dtype=torch.float32)
    expected, size = dense(features, texts, full(20, 5), temperature)
    logits = soft_match(features, texts, full(20, 5), temperature=temperature, block=3)
    assert ((logits - expected).abs() / size[:, None]).max() < 1e-4


def test_a_later_and_much_surer_description_takes_the_vote_from_earlier_blocks():
    features = torch.tensor([[[1.0, 0.0]]])
    texts = torch.tensor([[[-1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]])
    logits = soft_match(features, texts, full(3, 1), temperature=0.01, block=1)
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
    block=st.integers(1, 6),
)
def test_order_padding_and_blocks_never_matter(seed, crops, counts, block):
    draw = torch.Generator().manual_seed(seed)
    classes, widest = len(counts), max(counts)
    x = torch.nn.functional.normalize(torch.randn(2, crops, 6, generator=draw, dtype=torch.float64), dim=-1)
    t = torch.nn.functional.normalize(torch.randn(classes, widest, 6, generator=draw, dtype=torch.float64), dim=-1)
    mask = torch.arange(widest) < torch.tensor(counts).unsqueeze(1)
    logits = soft_match(x, t, mask, block=block)
    expected, _ = dense(x, t, mask, equal_mass=len(set(counts)) > 1)
    torch.testing.assert_close(logits, expected)

    junk = torch.where(mask.unsqueeze(-1), t, torch.nan)
    torch.testing.assert_close(soft_match(x, junk, mask, block=block), expected)

    rows, columns = torch.randperm(crops, generator=draw), torch.randperm(widest, generator=draw)
    order = torch.randperm(classes, generator=draw)
    shuffled = soft_match(x[:, rows], t[order][:, columns], mask[order][:, columns], block=block)
    torch.testing.assert_close(shuffled, expected[:, order])


def test_wrong_settings_are_refused_with_what_would_be_right(unit_rows):
    with pytest.raises(ValueError, match="temperature is 0; it must be above 0"):
        soft_match(unit_rows(1, 2, 4), unit_rows(2, 2, 4), full(2, 2), temperature=0)
    with pytest.raises(ValueError, match=r"no text for class number \[0\]"):
        soft_match(unit_rows(1, 2, 4), unit_rows(2, 2, 4), torch.tensor([[False, False], [True, False]]))
