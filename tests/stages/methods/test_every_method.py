"""What holds for every method: shapes, probabilities, the logit scale, order, single things, and what it asks for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.methods import ZERO_SHOT, Features, parse_method

CROPPED = ["wca", "crops_mean", "dnd", "abs"]
SCALED = [name for name in ZERO_SHOT if name != "abs"]
ABLATIONS = [
    {"name": "abs", "crops": crops, "matching": matching}
    for crops in ("both", "raw", "feature", "whole")
    for matching in ("soft", "mean")
]
ALL = [*ZERO_SHOT, *ABLATIONS]
LABELLED = ["wca"]
"""methods whose first prompt is the label's"""


@pytest.fixture
def features(unit) -> Features:
    return Features(unit(3, 8), unit(3, 7, 8, seed=1), unit(3, 7, 8, seed=2))


@pytest.mark.parametrize("method", ALL, ids=str)
def test_logits_are_float32_and_probabilities_sum_to_one(method, features, unit, texts, logits_of):
    logits = logits_of(method, features, texts(unit(5, 4, 8, seed=3)))
    assert logits.shape == (3, 5)
    assert logits.dtype == torch.float32
    probabilities = (logits * parse_method(method).probability_scale(features)).softmax(dim=-1)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(3))


@pytest.mark.parametrize("name", SCALED)
def test_the_models_own_logit_scale_is_used(name, features, unit, texts, logits_of):
    vectors = unit(3, 4, 8, seed=2)
    at_hundred = logits_of(name, features, texts(vectors))
    torch.testing.assert_close(logits_of(name, features, texts(vectors, scale=16.0)), at_hundred * 0.16)


@pytest.mark.parametrize("method", ALL, ids=str)
def test_one_class_one_description_and_one_crop_are_enough(method, unit, texts, logits_of):
    one = Features(unit(1, 8), unit(1, 1, 8, seed=1), unit(1, 1, 8, seed=2))
    name = method if isinstance(method, str) else method["name"]
    logits = logits_of(method, one, texts(unit(1, 2 if name in LABELLED else 1, 8, seed=3)))
    assert logits.shape == (1, 1)
    assert logits.isfinite().all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(5)), said=st.permutations(range(4)))
@pytest.mark.parametrize("method", ALL, ids=str)
def test_neither_the_order_of_crops_nor_that_of_descriptions_matters(method, unit, texts, logits_of, seed, order, said):
    whole, raw, crops = unit(2, 8, seed=seed), unit(2, 5, 8, seed=seed + 1), unit(2, 5, 8, seed=seed + 2)
    labels, vectors = unit(3, 1, 8, seed=seed + 3), unit(3, 4, 8, seed=seed + 4)
    before = texts(torch.cat([labels, vectors], dim=1))
    after = texts(torch.cat([labels, vectors[:, said]], dim=1))
    logits = logits_of(method, Features(whole, raw, crops), before)
    shuffled = logits_of(method, Features(whole, raw[:, order], crops[:, order]), after)
    torch.testing.assert_close(shuffled, logits, atol=2e-3, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(2, 4), min_size=2, max_size=4))
@pytest.mark.parametrize("method", ALL, ids=str)
def test_padding_never_matters(method, unit, texts, logits_of, seed, counts):
    features = Features(unit(2, 8, seed=seed), unit(2, 3, 8, seed=seed + 1), unit(2, 3, 8, seed=seed + 2))
    vectors, longest = unit(len(counts), 9, 8, seed=seed + 3), max(counts)
    mask = [[place < count for place in range(9)] for count in counts]
    padded = logits_of(method, features, texts(vectors, mask))
    tight = texts(vectors[:, :longest], [row[:longest] for row in mask])
    torch.testing.assert_close(padded, logits_of(method, features, tight), atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("method", ALL, ids=str)
def test_classes_with_the_same_texts_score_the_same(method, features, unit, texts, logits_of):
    vectors = unit(4, 5, 8, seed=3)
    vectors[3] = vectors[0]
    logits = logits_of(method, features, texts(vectors))
    torch.testing.assert_close(logits[:, 0], logits[:, 3], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", CROPPED)
def test_max_crops_reads_the_first_crops_and_asking_for_more_than_there_are_is_refused(
    name, features, unit, texts, logits_of
):
    described = texts(unit(3, 4, 8, seed=3))
    some = Features(features.whole, features.raw[:, :2], features.crops[:, :2])
    cut = logits_of({"name": name, "max_crops": 2}, features, described)
    torch.testing.assert_close(cut, logits_of(name, some, described))
    all_of_them = logits_of({"name": name, "max_crops": 7}, features, described)
    torch.testing.assert_close(all_of_them, logits_of(name, features, described))
    with pytest.raises(ValueError, match=rf"method '{name}' reads 8 crops \(`max_crops`\), and its view set has 7"):
        logits_of({"name": name, "max_crops": 8}, features, described)


@pytest.mark.parametrize("name", CROPPED)
def test_a_method_without_its_crops_says_which_setting_would_supply_them(name, unit, texts, logits_of):
    with pytest.raises(ValueError, match=f"method '{name}' reads crops; name a view set in its `views`"):
        logits_of(name, Features(unit(1, 8)), texts(unit(2, 3, 8)))


@pytest.mark.parametrize("method", ALL, ids=str)
def test_an_image_scores_the_same_in_any_batch(method, features, unit, texts, logits_of):
    described = texts(unit(4, 5, 8, seed=3))
    alone = Features(features.whole[1:2], features.raw[1:2], features.crops[1:2])
    together = logits_of(method, features, described)[1:2]
    torch.testing.assert_close(logits_of(method, alone, described), together, atol=1e-4, rtol=1e-5)
