from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.matching import cache, compiled_products
from stages.matching.cache import (
    Keys,
    aligned_affinities,
    all_affinities,
    choose_crops,
    chosen_products,
    class_votes,
    global_affinities,
)


@pytest.mark.parametrize(("beta", "votes"), [(5.5, [0.577, 0.111]), (1.0, [0.905, 0.670])])
def test_the_worked_example_of_two_entries(beta, votes):
    found = class_votes(torch.tensor([[0.9, 0.6]]), torch.tensor([0, 1]), 2, beta=beta)
    assert found[0].tolist() == pytest.approx(votes, abs=6e-4)
    if beta == 5.5:
        assert (torch.tensor([25.0, 26.0]) + found)[0].tolist() == pytest.approx([25.58, 26.11], abs=6e-3)


def test_votes_are_sums_by_class_in_any_order_and_none_without_entries():
    affinities = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 1.0]])
    found = class_votes(affinities, torch.tensor([2, 0, 2]), 4, beta=2.0, weights=torch.tensor([1.0, 3.0, 0.5]))
    e = math.exp
    wanted = [[3 * e(-1), 0, 1 + 0.5 * e(-2), 0], [3, 0, e(-2) + 0.5, 0]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_votes_of_half_precision_are_summed_in_single():
    affinities = torch.full((1, 5000), 1.0, dtype=torch.float16)
    assert class_votes(affinities, torch.zeros(5000, dtype=torch.int64), 1, beta=1.0).tolist() == [[5000.0]]


def test_the_first_of_equal_crops_is_chosen():
    crops = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    chosen, similarity = choose_crops(crops, torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]))
    assert chosen.tolist() == [1, 0, 1]
    assert similarity.tolist() == pytest.approx([1.0, 1.0, 0.8])


def test_crops_of_many_images_are_chosen_as_those_of_one(unit_rows, monkeypatch):
    crops, texts = unit_rows(5, 4, 8), unit_rows(6, 8, seed=1)
    one_by_one = [choose_crops(image, texts) for image in crops]
    monkeypatch.setattr(cache, "_BLOCK_ELEMENTS", 2 * 4 * 6)
    chosen, similarity = choose_crops(crops, texts)
    assert chosen.tolist() == [found.tolist() for found, _ in one_by_one]
    torch.testing.assert_close(similarity, torch.stack([found for _, found in one_by_one]))


def test_an_image_without_crops_is_refused(unit_rows):
    with pytest.raises(ValueError, match="no rows"):
        choose_crops(torch.zeros(2, 0, 8), unit_rows(3, 8))


@pytest.fixture
def world(unit_rows):
    """Crops [3, 4, 8], texts [3, 3, 8] with their mask (3, 1 and 2 descriptors), and keys with a duplicate."""
    mask = torch.tensor([[True, True, True], [True, False, False], [True, False, True]])
    texts = unit_rows(3, 3, 8, seed=1)
    texts[~mask] = torch.nan
    owners = torch.tensor([2, 0, 0, 2, 0, 2, 0, 2])
    descriptors = torch.tensor([2, 1, 0, 0, 2, 0, 1, 2])
    vectors = unit_rows(8, 8, seed=2)
    vectors[7] = vectors[0]
    return unit_rows(3, 4, 8), Keys(vectors, owners, descriptors), texts, mask


def by_hand(crops, keys, texts, mask, beta, mode):
    """Section 7.2, step 2, as it is printed."""
    votes = torch.zeros(len(crops), len(texts), dtype=torch.float64)
    for b, image in enumerate(crops):
        for key, c, n in zip(keys.vectors, keys.owners.tolist(), keys.descriptors.tolist(), strict=True):
            count = int(mask[c].sum())
            if mode == "aligned":
                nearest = max(range(len(image)), key=lambda m, n=n, c=c, image=image: float(image[m] @ texts[c, n]))
                votes[b, c] += math.exp(-beta * (1 - float(image[nearest] @ key))) / count
            else:
                for crop in image:
                    votes[b, c] += math.exp(-beta * (1 - float(crop @ key))) / (count * len(image))
    return votes


def asked(crops, keys, texts, mask, mode):
    return aligned_affinities(crops, keys, texts, mask) if mode == "aligned" else all_affinities(crops, keys, mask)


@pytest.mark.parametrize("mode", ["aligned", "all"])
@pytest.mark.parametrize("block", [1, 2**21])
def test_votes_of_crops_are_those_of_the_printed_sums(world, mode, block, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK_ELEMENTS", block)
    found = asked(*world, mode)
    votes = class_votes(found.values, found.owners, 3, beta=5.5, weights=found.weights)
    torch.testing.assert_close(votes, by_hand(*world, 5.5, mode))
    assert (votes[:, 1] == 0).all()


def test_whole_images_ask_as_one_crop_does(world):
    crops, keys, _, mask = world
    whole, one = global_affinities(crops[:, 0], keys, mask), all_affinities(crops[:, :1], keys, mask)
    torch.testing.assert_close(whole.values, one.values)
    torch.testing.assert_close(whole.weights, one.weights)
    assert whole.owners.tolist() == one.owners.tolist()


def test_a_support_image_asked_for_itself_is_as_near_as_can_be(world):
    crops, _, texts, mask = world
    owners, descriptors = mask.nonzero().T
    chosen, _ = choose_crops(crops[0], texts[owners, descriptors])
    keys = Keys(crops[0, chosen], owners, descriptors)
    found = aligned_affinities(crops[:1], keys, texts, mask)
    known, _ = choose_crops(crops[:1], texts.flatten(0, 1))
    torch.testing.assert_close(aligned_affinities(crops[:1], keys, texts, mask, known).values, found.values)
    torch.testing.assert_close(found.values, torch.ones(1, len(owners), dtype=torch.float64))


def test_a_key_of_a_descriptor_that_is_not_there_is_refused(world):
    crops, keys, texts, mask = world
    mask[2, 2] = False
    with pytest.raises(ValueError, match="key 0 was chosen by descriptor 2 of class number 2"):
        aligned_affinities(crops, keys, texts, mask)


def test_an_empty_cache_has_no_votes(world):
    crops, keys, texts, mask = world
    none = Keys(keys.vectors[:0], keys.owners[:0], keys.descriptors[:0])
    for found in (aligned_affinities(crops, none, texts, mask), all_affinities(crops, none, mask)):
        assert class_votes(found.values, found.owners, 3, beta=1.0, weights=found.weights).tolist() == [[0.0] * 3] * 3


@settings(max_examples=25, deadline=None)
@given(
    groups=st.lists(st.integers(0, 5), max_size=12),
    block=st.sampled_from([1, 40, 10**6]),
    dim=st.sampled_from([5, 16, 37]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_products_by_groups_and_their_gradients_are_those_one_by_one(groups, block, dim, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    crops = torch.randn(2, 3, dim, generator=draw, dtype=dtype)
    vectors = torch.randn(len(groups), dim, generator=draw, dtype=dtype, requires_grad=True)
    chosen, factors = torch.randint(3, (2, 6), generator=draw), torch.randn(2, len(groups), generator=draw, dtype=dtype)
    groups = torch.tensor(groups, dtype=torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_BLOCK_ELEMENTS", block)
        patch.setattr(compiled_products, "_TASK", 3)
        found = chosen_products(crops, chosen, vectors, groups)
        with torch.no_grad():
            assert torch.equal(chosen_products(crops, chosen, vectors, groups), found)
        gradient = torch.autograd.grad((found * factors).sum(), vectors)[0] if len(groups) else None
    picked = crops[torch.arange(2).unsqueeze(1), chosen[:, groups]]
    wanted = torch.einsum("bsd,sd->bs", picked, vectors)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    if len(groups):
        (wanted,) = torch.autograd.grad((wanted * factors).sum(), vectors)
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)
