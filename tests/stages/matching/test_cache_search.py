from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.matching import cache_search
from stages.matching.cache import class_votes
from stages.matching.cache_search import CacheSearch, grid


def double_loop(base, affinities, owners, labels, alphas, betas, weights=None):
    """Every pair on its own, in the official order: hits, the best pair, and the smallest margin of any label."""
    hits = torch.zeros(len(betas), len(alphas), dtype=torch.int64)
    best, pair, margin = -1, None, torch.inf
    for i, beta in enumerate(betas):
        for j, alpha in enumerate(alphas):
            votes = class_votes(affinities.double(), owners, base.shape[1], beta=beta, weights=weights)
            logits = base.double() + alpha * votes
            hits[i, j] = (logits.argmax(dim=1) == labels).sum()
            gap = logits - logits.gather(1, labels[:, None])
            margin = min(margin, float(gap.scatter(1, labels[:, None], torch.inf).abs().min()))
            if hits[i, j] > best:
                best, pair = hits[i, j], (alpha, beta)
    return hits, pair, margin


def test_the_grid_begins_at_a_tenth_and_leaves_out_its_upper_end():
    alphas, betas = grid(3.0, 7.0)
    assert (len(alphas), len(betas)) == (20, 200)
    assert (alphas[0], betas[0]) == (0.1, 0.1)
    assert alphas[-1] == pytest.approx(3 - 2.9 / 20)
    assert betas[-1] == pytest.approx(7 - 6.9 / 200)


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 40),
    classes=st.integers(1, 6),
    entries=st.integers(0, 30),
    weighted=st.booleans(),
    seed=st.integers(0, 10**6),
    cut=st.integers(0, 40),
    block=st.sampled_from([1, 2**19]),
)
def test_hits_of_all_pairs_are_those_of_a_double_loop(images, classes, entries, weighted, seed, cut, block):
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(images, classes, generator=draw)
    affinities = torch.rand(images, entries, generator=draw) * 1.5 - 0.4
    owners = torch.randint(classes, (entries,), generator=draw)
    labels = torch.randint(classes, (images,), generator=draw)
    weights = torch.rand(entries, generator=draw) if weighted else None
    alphas, betas = [0.7, 0.1, 5.0, -2.0], [0.1, 9.0, 3.0]
    hits, pair, margin = double_loop(base, affinities, owners, labels, alphas, betas, weights)
    if margin < 1e-4:
        return
    search = CacheSearch(alphas, betas)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_search, "_BLOCK_ELEMENTS", block)
        for some in (slice(0, cut), slice(cut, None)):
            search.add(base[some], affinities[some], owners, labels[some], weights)
    found = search.best()
    assert found.hits.tolist() == hits.tolist()
    assert (found.alpha, found.beta) == pair
    assert found.accuracy == int(hits.max()) / images


@pytest.mark.parametrize("label", [0, 1, 2])
def test_ties_go_to_the_lower_class_at_both_ends_of_the_interval(label):
    # Affinities of 1 vote exactly 1, so that alpha = 2 is exactly where classes meet.
    base = torch.tensor([[2.0, 0.0, 2.0], [0.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    affinities, owners = torch.ones(3, 1), torch.tensor([1])
    labels, alphas, betas = torch.full((3,), label), [0.0, 1.0, 2.0, 3.0], [1.0]
    search = CacheSearch(alphas, betas)
    search.add(base, affinities, owners, labels)
    hits, *_ = double_loop(base, affinities, owners, labels, alphas, betas)
    assert search.best().hits.tolist() == hits.tolist()


def test_classes_that_cannot_be_told_apart_are_won_by_the_first():
    base, affinities, owners = torch.zeros(2, 2), torch.tensor([[0.5, 0.5]] * 2), torch.tensor([0, 1])
    search = CacheSearch([1.0], [1.0])
    search.add(base, affinities, owners, torch.tensor([0, 1]))
    assert search.best().accuracy == 0.5


def test_among_equal_pairs_the_first_is_best():
    search = CacheSearch([1.0, 2.0], [3.0, 4.0])
    search.add(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 0), torch.zeros(0, dtype=torch.int64), torch.tensor([0]))
    found = search.best()
    assert (found.alpha, found.beta, found.hits.tolist()) == (1.0, 3.0, [[1, 1], [1, 1]])


def test_a_class_that_is_out_of_the_question_never_wins():
    base = torch.tensor([[-torch.inf, 0.0, 0.5]])
    search = CacheSearch([1.0], [1.0])
    search.add(base, torch.tensor([[1.0, 1.0]]), torch.tensor([0, 1]), torch.tensor([1]))
    assert search.best().accuracy == 1.0


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(ValueError, match="at least one of each"):
        CacheSearch([], [1.0])
    search = CacheSearch([1.0], [1.0])
    with pytest.raises(ValueError, match="needs images"):
        search.best()
    with pytest.raises(ValueError, match="labels are 0 to 3; base has 3 classes"):
        search.add(torch.zeros(2, 3), torch.zeros(2, 0), torch.zeros(0, dtype=torch.int64), torch.tensor([0, 3]))
