from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.matching import stream_replay
from stages.matching.dnd_stream import iter_dnd_stream, run_dnd_stream
from stages.matching.stream import run_stream
from stages.matching.stream_caches import StreamSettings


def sample_by_sample(crops, texts, mask, logits, order, s):
    """Sections 7.3 and 10 as they are printed."""
    classes = logits.shape[1]
    positive, negative, adapted = {}, {}, torch.empty(logits.shape, dtype=torch.float64)
    counts = mask.sum(dim=1).tolist()

    def selected(t, c):
        present = texts[c][mask[c]].double()
        nearest = (crops[t].double() @ present.T).argmax(dim=0)
        return crops[t].double()[nearest]

    def enter(cache, item, capacity):
        if len(cache) < capacity:
            cache.append(item)
        elif cache and item[0] < cache[-1][0]:
            cache[-1] = item
        cache.sort(key=lambda kept: kept[0])

    def affinity(t, c, key, beta):
        cosines = (selected(t, c) * key).sum(dim=1)
        return torch.exp(-beta * (1 - cosines)).sum() / counts[c]

    for t in order.tolist():
        p = logits[t].softmax(dim=0)
        h, c = -(p * logits[t].log_softmax(dim=0)).sum(), int(logits[t].argmax())
        enter(positive.setdefault(c, []), (h, t, selected(t, c)), s.positive_capacity)
        if s.entropy_bounds[0] < float(h) / math.log2(classes) < s.entropy_bounds[1]:
            inside = ((s.mask_bounds[0] < p) & (p < s.mask_bounds[1])).double()
            enter(negative.setdefault(c, []), (h, t, selected(t, c), inside), s.negative_capacity)
        adapted[t] = logits[t].double()
        for c, items in positive.items():
            for _, step, key in items:
                if not (s.exclude_self and step == t):
                    adapted[t, c] += s.positive_alpha * affinity(t, c, key, s.positive_beta)
        for c, items in negative.items():
            for _, step, key, inside in items:
                if not (s.exclude_self and step == t):
                    adapted[t] -= s.negative_alpha * affinity(t, c, key, s.negative_beta) * inside
    return adapted


def stream(count, classes, seed, dim=18):
    draw = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize
    texts = unit(torch.randn(classes, 3, dim, generator=draw), dim=-1)
    crops = unit(torch.randn(count, 4, dim, generator=draw), dim=-1)
    mask = torch.rand(classes, 3, generator=draw) < 0.7
    mask[:, 1] = True
    texts[~mask] = torch.nan
    logits = 2 * torch.randn(count, classes, generator=draw)
    return crops, texts, mask, logits, torch.randperm(count, generator=draw)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 40),
    classes=st.integers(2, 4),
    seed=st.integers(0, 10**6),
    exclude_self=st.booleans(),
    capacities=st.tuples(st.integers(0, 3), st.integers(0, 2)),
    block=st.sampled_from([1, 7, 33, 512]),
    tile=st.sampled_from([1, 5, 1024]),
)
def test_a_stream_in_blocks_is_the_one_sample_by_sample(count, classes, seed, exclude_self, capacities, block, tile):
    parts = stream(count, classes, seed)
    s = StreamSettings(
        positive_capacity=capacities[0], negative_capacity=capacities[1], negative_alpha=0.7, exclude_self=exclude_self
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_replay, "_TILE", tile)
        patch.setattr(stream_replay, "_ROWS", 16 if tile < 1024 else 128)
        found = run_dnd_stream(*parts, s, block=block)
    torch.testing.assert_close(found.double(), sample_by_sample(*parts, s), atol=1e-4, rtol=1e-5)


def test_crops_may_come_block_by_block():
    crops, *rest = stream(30, 3, 0)
    asked = []

    def some(samples):
        asked.append(len(samples))
        return crops[samples].half()

    found = run_dnd_stream(some, *rest, StreamSettings(), block=8)
    torch.testing.assert_close(found, run_dnd_stream(crops.half(), *rest, StreamSettings()))
    assert asked == [8, 8, 8, 6]


def test_one_crop_and_one_descriptor_a_class_are_plain_tda(unit_rows):
    features, texts = unit_rows(30, 8, dtype=torch.float32), unit_rows(4, 1, 8, seed=1, dtype=torch.float32)
    mask, logits, order = torch.ones(4, 1, dtype=torch.bool), 5 * features @ texts[:, 0].T, torch.arange(30)
    found = run_dnd_stream(features.unsqueeze(1), texts, mask, logits, order, StreamSettings())
    torch.testing.assert_close(found, run_stream(features, logits, order, StreamSettings()))


def test_texts_of_other_classes_are_refused():
    crops, texts, mask, logits, order = stream(5, 3, 0)
    with pytest.raises(ValueError, match="different classes"):
        next(iter_dnd_stream(crops, texts[:2], mask[:2], logits, order, StreamSettings()))
    with pytest.raises(ValueError, match="no rows"):
        run_dnd_stream(crops[:, :0], texts, mask, logits, order, StreamSettings())
