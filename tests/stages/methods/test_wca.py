"""WCA: weights by relevance, the collapsed form, and the published code's draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.methods import Features, parse_method
from stages.methods.weighting import crop_relevance, text_relevance


def test_weights_are_those_of_the_worked_example():
    crops = crop_relevance(torch.tensor([[0.9, 0.8]]), math.exp(4))
    assert crops[0].tolist() == pytest.approx([0.9958, 0.0042], abs=5e-5)
    labels = torch.tensor([[1.0, 0.0, 0.0]])
    described = torch.tensor([[[0.30, 0.954, 0.0], [0.25, 0.0, 0.968], [9.0, 9.0, 9.0]]])
    weights = text_relevance(described, torch.tensor([[True, True, False]]), labels, math.exp(2))
    assert weights[0].tolist() == pytest.approx([0.5913, 0.4087, 0.0], abs=5e-5)


def test_the_scales_are_those_of_the_paper_in_natural_units():
    method = parse_method("wca")
    assert method.image_scale == pytest.approx(54.598, abs=1e-3)
    assert method.text_scale == pytest.approx(7.389, abs=1e-3)


def double_sum(method, features: Features, described) -> np.ndarray:
    """sum_ij w_i v_j cos(x_i, t_cj), loop by loop in float64."""
    whole, raw = features.whole.double().numpy(), features.raw.double().numpy()
    vectors, mask = described.vectors.double().numpy(), described.mask.numpy()
    scores = np.zeros((len(raw), len(vectors)))
    for image, crops in enumerate(raw):
        w = np.exp(method.image_scale * crops @ whole[image])
        w /= w.sum()
        for number, (label, *rows) in enumerate(vectors):
            rows = [row for row, there in zip(rows, mask[number, 1:], strict=True) if there]
            v = np.exp(method.text_scale * np.array([row @ label for row in rows]))
            v /= v.sum()
            scores[image, number] = sum(
                w[i] * v[j] * (crops[i] @ rows[j]) for i in range(len(crops)) for j in range(len(rows))
            )
    return scores


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), crops=st.integers(1, 5), counts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_collapsed_form_is_the_published_sum_over_all_crops_and_descriptions(unit, texts, seed, crops, counts):
    method = parse_method({"name": "wca", "renormalize": False, "image_scale": 6.0})
    features = Features(unit(2, 6, seed=seed), unit(2, crops, 6, seed=seed + 1))
    mask = [[place <= count for place in range(max(counts) + 1)] for count in counts]
    described = texts(unit(len(counts), max(counts) + 1, 6, seed=seed + 2), mask)
    logits = method.logits(features, method.prepare(described))
    np.testing.assert_allclose(logits.numpy(), 100 * double_sum(method, features, described), atol=2e-4)


def test_by_default_both_sides_have_length_one(unit, texts, logits_of):
    features, described = Features(unit(3, 8), unit(3, 5, 8, seed=1)), texts(unit(4, 6, 8, seed=2))
    method = parse_method("wca")
    torch.testing.assert_close(method.image(features).norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(method.prepare(described).norm(dim=-1), torch.full((4,), 100.0))
    loose = parse_method({"name": "wca", "renormalize": False})
    cosines = F.normalize(loose.image(features), dim=-1) @ F.normalize(loose.prepare(described), dim=-1).T
    torch.testing.assert_close(logits_of(method, features, described), 100 * cosines)


def test_with_scales_of_zero_wca_is_the_mean_of_crops_and_descriptions(unit, texts, logits_of):
    features, vectors = Features(unit(3, 8), unit(3, 5, 8, seed=1)), unit(4, 6, 8, seed=2)
    equal = logits_of({"name": "wca", "image_scale": 0, "text_scale": 0}, features, texts(vectors))
    torch.testing.assert_close(equal, logits_of("crops_mean", features, texts(vectors[:, 1:])))


def test_the_label_stands_before_the_descriptions():
    assert parse_method("wca").prompts("blue_jay", ["A crest."], "sentences") == ["a photo of a blue jay.", "A crest."]


def test_the_code_s_preset_samples_sixty_crops_twenty_times_and_keys_that_are_given_win():
    code = parse_method({"name": "wca", "preset": "wca_code"})
    assert (code.sample, code.seeds) == (60, list(range(20)))
    assert [variant.draw for variant in code.variants()] == list(range(20))
    given_wins = parse_method({"name": "wca", "preset": "wca_code", "sample": 7, "seeds": [3]})
    assert (given_wins.sample, given_wins.seeds, given_wins.draw) == (7, [3], 3)
    assert "preset" not in code.model_dump()
    assert code.model_dump() == parse_method({"name": "wca", "sample": 60, "seeds": list(range(20))}).model_dump()


def test_a_sample_takes_the_same_crops_of_every_image_as_often_as_they_were_drawn(unit, texts, logits_of):
    features, described = Features(unit(3, 8), unit(3, 9, 8, seed=1)), texts(unit(4, 6, 8, seed=2))
    method = parse_method({"name": "wca", "sample": 12, "seeds": [5]})
    drawn = np.random.default_rng(5).integers(9, size=12)
    by_hand = Features(features.whole, features.raw[:, drawn])
    assert len(set(drawn.tolist())) < 9, "the example should leave some crops out"
    torch.testing.assert_close(logits_of(method, features, described), logits_of("wca", by_hand, described))
    alone = Features(features.whole[1:2], features.raw[1:2])
    torch.testing.assert_close(logits_of(method, alone, described), logits_of(method, features, described)[1:2])


def test_seeds_without_a_sample_and_several_at_once_are_refused(unit, texts):
    with pytest.raises(ValueError, match=r"`seeds` draw samples.*give `sample`"):
        parse_method({"name": "wca", "seeds": [1, 2]})
    several = parse_method({"name": "wca", "sample": 3, "seeds": [1, 2]})
    with pytest.raises(ValueError, match=r"has 2 draws; take one of its variants"):
        several.logits(Features(unit(1, 8), unit(1, 4, 8)), several.prepare(texts(unit(2, 3, 8))))
