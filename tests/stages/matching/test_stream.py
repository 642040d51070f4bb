from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.matching import stream_replay
from stages.matching.stream import iter_stream, run_stream
from stages.matching.stream_caches import StreamSettings, decide
from stages.matching.stream_views import select_views


def enter(cache: list, item: tuple, capacity: int) -> None:
    """Section 10, step 3, on a list of (entropy, ...) in order."""
    if len(cache) < capacity:
        cache.append(item)
    elif item[0] < cache[-1][0]:
        cache[-1] = item
    cache.sort(key=lambda kept: kept[0])


def sample_by_sample(features, logits, order, s, entropies=None, probabilities=None):
    """Section 10 as it is printed, with a dict of lists; float64 but for the entropies."""
    classes = logits.shape[1]
    positive, negative, adapted = {}, {}, torch.empty(logits.shape, dtype=torch.float64)
    for t in order.tolist():
        x, p = features[t].double(), logits[t].softmax(dim=0)
        h = -(p * logits[t].log_softmax(dim=0)).sum() if entropies is None else entropies[t]
        p = p if probabilities is None else probabilities[t]
        c = int(logits[t].argmax())
        if s.positive_capacity:
            enter(positive.setdefault(c, []), (h, t, x), s.positive_capacity)
        normalised = float(h) / math.log2(classes) if classes > 1 else 0.0
        if s.negative_capacity and s.entropy_bounds[0] < normalised < s.entropy_bounds[1]:
            mask = (s.mask_bounds[0] < p) & (p < s.mask_bounds[1])
            enter(negative.setdefault(c, []), (h, t, x, mask.double()), s.negative_capacity)
        final = logits[t].double().clone()
        for c, items in positive.items():
            for _, step, key in items:
                if not (s.exclude_self and step == t):
                    final[c] += s.positive_alpha * torch.exp(-s.positive_beta * (1 - x @ key))
        for items in negative.values():
            for _, step, key, mask in items:
                if not (s.exclude_self and step == t):
                    final -= s.negative_alpha * torch.exp(-s.negative_beta * (1 - x @ key)) * mask
        adapted[t] = final
    return adapted


def same(found, wanted):
    """Equal logits, and equal predictions unless the margin is under 1e-4."""
    torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=1e-5)
    if wanted.shape[1] > 1:
        best = wanted.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] >= 1e-4
        assert torch.equal(found.argmax(dim=1)[clear], wanted.argmax(dim=1)[clear])


def stream(count, classes, dim, seed, ties=False):
    """A stream with clusters; with ties there are few different entropies, and they are powers that batches keep."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=draw)
    labels = torch.randint(max(1, classes - 1), (count,), generator=draw)  # the last class is hardly ever predicted
    features = torch.nn.functional.normalize(centres[labels] + torch.randn(count, dim, generator=draw), dim=1)
    logits = 4 * features @ torch.nn.functional.normalize(centres, dim=1).T
    entropies = torch.randint(1, 4, (count,), generator=draw) / 4 if ties else None
    return features, logits, torch.randperm(count, generator=draw), entropies


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 60),
    classes=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
    capacities=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    exclude_self=st.booleans(),
    block=st.sampled_from([1, 7, 16, 33, 512]),
    tile=st.sampled_from([1, 5, 1024]),
    bounds=st.sampled_from([(0.2, 0.5), (0.0, 1.0)]),
)
def test_a_stream_in_blocks_is_the_one_sample_by_sample(
    count, classes, seed, ties, capacities, exclude_self, block, tile, bounds
):
    features, logits, order, entropies = stream(count, classes, 8, seed, ties)
    chosen = StreamSettings(
        positive_capacity=capacities[0],
        negative_capacity=capacities[1],
        negative_alpha=0.7,
        entropy_bounds=bounds,
        exclude_self=exclude_self,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_replay, "_TILE", tile)
        patch.setattr(stream_replay, "_ROWS", 16 if tile < 1024 else 128)
        found = run_stream(features, logits, order, chosen, entropies=entropies, block=block)
    same(found, sample_by_sample(features, logits, order, chosen, entropies))


def test_entropies_and_probabilities_of_views_take_the_place_of_the_logits_own():
    draw = torch.Generator().manual_seed(3)
    features = torch.nn.functional.normalize(torch.randn(40, 6, 8, generator=draw), dim=-1)
    views = 5 * features @ torch.randn(8, 5, generator=draw)
    chosen = select_views(features, views, share=0.5)
    given_ = {"entropies": chosen.entropies, "probabilities": chosen.probabilities}
    order, s = torch.randperm(40, generator=draw), StreamSettings(negative_alpha=1.0, entropy_bounds=(0.0, 1.0))
    found = run_stream(chosen.features, chosen.logits, order, s, **given_)
    same(found, sample_by_sample(chosen.features, chosen.logits, order, s, *given_.values()))
    assert (found - run_stream(chosen.features, chosen.logits, order, s)).abs().max() > 0.01


def decided(logits, **changes):
    return decide(logits, torch.arange(len(logits)), StreamSettings(**changes)).caches


@pytest.mark.parametrize(("probabilities", "enters"), [((0.4, 0.3, 0.2, 0.1), False), ((0.9, 0.05, 0.03, 0.02), True)])
def test_the_worked_example_of_the_entropy_window_and_the_strict_mask(probabilities, enters):
    # The given probability of .03 is exact where that of the logits might be rounded upwards.
    logits = torch.tensor([probabilities]).log()
    shares = torch.tensor([probabilities], dtype=torch.float64)
    _, negative = decide(logits, torch.arange(1), StreamSettings(), probabilities=shares).caches
    assert negative.slots.tolist() == [0 if enters else -1]
    assert negative.classes.tolist() == ([0, 1] if enters else [])


def test_a_new_sample_takes_the_place_of_the_least_sure_and_only_when_it_is_surer():
    entropies = torch.tensor([0.5, 0.3, 0.5, 0.4, 0.4, 0.1, 0.4])
    logits = torch.tensor([[1.0, 0.0]]).repeat(7, 1)
    (positive,) = decide(
        logits, torch.arange(7), StreamSettings(positive_capacity=2, negative_capacity=0), entropies=entropies
    ).caches
    # .5, .3 | .5: no | .4 for the .5 | .4: no, not below | .1 for the .4 | .4: no
    assert positive.slots.tolist() == [0, 1, -1, 0, -1, 0, -1]


def test_among_equal_entropies_the_last_to_come_goes_first():
    entropies = torch.tensor([0.5, 0.5, 0.2, 0.1])
    logits = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    (positive,) = decide(
        logits, torch.arange(4), StreamSettings(positive_capacity=2, negative_capacity=0), entropies=entropies
    ).caches
    assert positive.slots.tolist() == [0, 1, 1, 0]


def test_a_kept_sample_votes_for_itself_with_all_of_alpha_unless_it_is_excluded():
    features, logits, order = torch.eye(2), torch.tensor([[5.0, 0.0], [0.0, 5.0]]), torch.arange(2)
    own = run_stream(features, logits, order, StreamSettings(positive_alpha=3.0))
    across = 3 * math.exp(-5)
    torch.testing.assert_close(own, torch.tensor([[8.0, 0.0], [across, 8.0]]))
    without = run_stream(features, logits, order, StreamSettings(positive_alpha=3.0, exclude_self=True))
    torch.testing.assert_close(without, torch.tensor([[5.0, 0.0], [across, 5.0]]))


def test_without_caches_logits_stay_as_they_are():
    features, logits, order, _ = stream(20, 3, 8, 0)
    none = StreamSettings(positive_capacity=0, negative_capacity=0)
    assert torch.equal(run_stream(features, logits, order, none), logits)


def test_one_class_has_no_negative_items():
    (_, negative) = decided(torch.zeros(5, 1), entropy_bounds=(-1.0, 1.0))
    assert len(negative.classes) == 0
    assert decided(torch.zeros(5, 1))[1].slots.max() == -1


def test_blocks_come_in_the_order_of_the_stream():
    features, logits, order, _ = stream(30, 3, 8, 0)
    parts = list(iter_stream(features, logits, order, StreamSettings(), block=8))
    assert [len(rows) for _, rows in parts] == [8, 8, 8, 6]
    assert torch.cat([samples for samples, _ in parts]).tolist() == order.tolist()


def test_another_order_is_another_result_and_the_same_order_the_same():
    features, logits, order, _ = stream(60, 4, 8, 1)
    once, again, other = (run_stream(features, logits, o, StreamSettings()) for o in (order, order, order.flip(0)))
    assert torch.equal(once, again)
    assert not torch.allclose(once, other)


def test_features_in_half_precision_are_compared_in_single():
    features, logits, order, _ = stream(40, 4, 8, 2)
    half = features.half()
    found = run_stream(half, logits, order, StreamSettings())
    assert torch.equal(found, run_stream(half.float(), logits, order, StreamSettings()))


def test_what_is_no_stream_is_refused():
    features, logits, order, entropies = stream(4, 3, 8, 0, ties=True)
    s = StreamSettings()
    with pytest.raises(ValueError, match="no permutation of the 4 samples"):
        run_stream(features, logits, torch.tensor([0, 1, 1, 3]), s)
    with pytest.raises(ValueError, match="different samples"):
        run_stream(features[:3], logits, order, s)
    with pytest.raises(ValueError, match=r"entropies are \[3\]"):
        run_stream(features, logits, order, s, entropies=entropies[:3])
    logits[2, 1] = torch.nan
    with pytest.raises(ValueError, match="sample 2 has logits"):
        run_stream(features, logits, order, s)


def test_the_surest_tenth_of_the_views_is_averaged_and_not_made_a_unit_row():
    draw = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2, 64, 8, generator=draw), dim=-1)
    logits = 9 * torch.rand(2, 64, 5, generator=draw)
    found = select_views(features, logits)
    for b in range(2):
        p = logits[b].softmax(dim=1)
        surest = sorted(range(64), key=lambda v, p=p: float(-(p[v] * p[v].log()).sum()))[:6]
        mean = p[surest].mean(dim=0)
        torch.testing.assert_close(found.features[b], features[b, surest].mean(dim=0))
        torch.testing.assert_close(found.logits[b], logits[b, surest].mean(dim=0))
        torch.testing.assert_close(found.probabilities[b], mean)
        torch.testing.assert_close(found.entropies[b], -(mean * mean.log()).sum())
    assert (found.features.norm(dim=1) < 0.95).all()


def test_of_a_few_views_one_is_taken_and_a_share_of_none_is_refused():
    features, logits = torch.eye(3).unsqueeze(0), torch.tensor([[[1.0, 0.0], [9.0, 0.0], [9.0, 0.0]]])
    assert select_views(features, logits).features.tolist() == [[0.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match="share of 0"):
        select_views(features, logits, share=0)


def test_logits_so_far_apart_that_probabilities_vanish_leave_entropies_finite():
    found = select_views(torch.eye(2).unsqueeze(0), torch.tensor([[[300.0, 0.0], [300.0, 0.0]]]), share=1.0)
    assert found.entropies.tolist() == [0.0]
    s = replace(StreamSettings(), positive_alpha=1.0)
    assert run_stream(torch.eye(1), torch.tensor([[300.0, 0.0]]), torch.tensor([0]), s).tolist() == [[301.0, 0.0]]
