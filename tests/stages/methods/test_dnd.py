"""D&D: the worked example of transport, and every choice of the reconstruction."""

from __future__ import annotations

import pytest
import torch

from stages.methods import Features, parse_method


@pytest.fixture
def example(with_cosines, texts):
    """Averaging says B (.25, .26), transport says A (algorithms.md 7.1)."""
    crops, descriptions = with_cosines([[[0.30, 0.20], [0.22, 0.28]], [[0.30, 0.24], [0.29, 0.21]]])
    return Features(whole=crops[:, 0], raw=crops), texts(descriptions)


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        ({}, [26.520, 26.025]),
        ({"epsilon": 0.01, "iterations": 2000}, [28.997, 26.231]),
        ({"solver": "pot"}, [26.520, 26.025]),
        ({"solver": "exact"}, [29.0, 26.5]),
        ({"epsilon": 1e3}, [25.0, 26.0]),
        ({"epsilon": 0.01, "iterations": 10_000, "tolerance": 1e-7}, [28.997, 26.231]),
        ({"epsilon": 0.01, "iterations": 10_000, "tolerance": 1.0}, [28.990, 26.571]),  # ends after the first step
    ],
    ids=str,
)
def test_transport_scores_the_worked_example(settings, scores, example, logits_of):
    assert logits_of({"name": "dnd", **settings}, *example)[0].tolist() == pytest.approx(scores, abs=2e-3)


def test_averaging_says_b_in_the_same_example(example, logits_of):
    mean = logits_of({"name": "crops_mean", "renormalize": False}, *example)
    assert mean[0].tolist() == pytest.approx([25.0, 26.0], abs=1e-3)


def test_the_whole_image_counts_as_a_crop_when_asked(unit, texts, logits_of):
    whole, raw, described = unit(2, 8), unit(2, 5, 8, seed=1), texts(unit(3, 4, 8, seed=2))
    asked = logits_of({"name": "dnd", "include_global": True}, Features(whole, raw), described)
    by_hand = torch.cat([raw, whole.unsqueeze(1)], dim=1)
    torch.testing.assert_close(asked, logits_of("dnd", Features(whole, by_hand), described))


def test_nine_descriptions_of_a_class_are_read_unless_asked_otherwise():
    marks = [f"Mark {number}." for number in range(12)]
    assert parse_method("dnd").prompts("jay", marks, "sentences") == marks[:9]
    assert parse_method({"name": "dnd", "max_descriptors": None}).prompts("jay", marks, "sentences") == marks


def test_the_weighted_cosine_of_image_and_label_is_added_when_asked(unit, texts, logits_of):
    method = parse_method({"name": "dnd", "global_weight": 0.5})
    assert method.prompts("blue_jay", ["A crest."], "sentences") == ["a photo of a blue jay.", "A crest."]
    whole, raw = unit(2, 8), unit(2, 5, 8, seed=1)
    labels, described = unit(3, 1, 8, seed=2), unit(3, 4, 8, seed=3)
    together = logits_of(method, Features(whole, raw), texts(torch.cat([labels, described], dim=1)))
    alone = logits_of("dnd", Features(whole, raw), texts(described))
    torch.testing.assert_close(together, alone + 0.5 * 100 * whole @ labels[:, 0].T)


def test_a_crop_without_weight_might_as_well_not_be_there(unit, texts, logits_of):
    whole, raw, described = unit(2, 8), unit(2, 4, 8, seed=1), texts(unit(3, 4, 8, seed=2))
    weighted = logits_of({"name": "dnd", "crop_weights": [1, 0, 1.0, 1]}, Features(whole, raw), described)
    torch.testing.assert_close(weighted, logits_of("dnd", Features(whole, raw[:, [0, 2, 3]]), described))


def test_equal_weights_of_any_sum_are_uniform(unit, texts, logits_of):
    features, described = Features(unit(2, 8), unit(2, 4, 8, seed=1)), texts(unit(3, 4, 8, seed=2))
    weighted = logits_of({"name": "dnd", "crop_weights": [7, 7, 7, 7]}, features, described)
    torch.testing.assert_close(weighted, logits_of("dnd", features, described))


@pytest.mark.parametrize("weights", [[1e6] * 4, [1e-6] * 4])
def test_the_largest_and_smallest_weights_are_still_weights(weights, unit, texts, logits_of):
    features, described = Features(unit(2, 8), unit(2, 4, 8, seed=1)), texts(unit(3, 4, 8, seed=2))
    weighted = logits_of({"name": "dnd", "crop_weights": weights}, features, described)
    torch.testing.assert_close(weighted, logits_of("dnd", features, described))


def test_relevant_crops_carry_more_when_asked(unit, texts, logits_of):
    whole, described = unit(2, 8), texts(unit(3, 4, 8, seed=2))
    raw = torch.stack([whole, -whole], dim=1)  # one crop like the image, one that is its opposite
    sharp = {"name": "dnd", "crop_weights": "relevance", "crop_temperature": 0.05}
    like_the_first = logits_of("dnd", Features(whole, raw[:, :1]), described)
    torch.testing.assert_close(logits_of(sharp, Features(whole, raw), described), like_the_first)
    vague = {"name": "dnd", "crop_weights": "relevance", "crop_temperature": 100.0}
    uniform = logits_of("dnd", Features(whole, raw), described)
    torch.testing.assert_close(logits_of(vague, Features(whole, raw), described), uniform, atol=2.0, rtol=0)
    counted = logits_of(sharp | {"include_global": True}, Features(whole, raw[:, 1:]), described)
    torch.testing.assert_close(counted, like_the_first)


def test_relevant_descriptions_carry_more_when_asked(unit, texts, logits_of):
    method = parse_method({"name": "dnd", "text_weights": "relevance", "text_temperature": 0.05})
    assert method.prompts("jay", ["A crest."], "sentences") == ["a photo of a jay.", "A crest."]
    features, labels = Features(unit(2, 8), unit(2, 4, 8, seed=1)), unit(3, 8, seed=2)
    described = torch.stack([labels, labels, -labels], dim=1)  # after the label one like it, one its opposite
    only_the_like = logits_of("dnd", features, texts(labels.unsqueeze(1)))
    torch.testing.assert_close(logits_of(method, features, texts(described)), only_the_like)


def test_relevance_of_descriptions_leaves_padding_out(unit, texts, logits_of):
    method = {"name": "dnd", "text_weights": "relevance"}
    features, vectors = Features(unit(2, 8), unit(2, 4, 8, seed=1)), unit(2, 4, 8, seed=2)
    ragged = logits_of(method, features, texts(vectors, [[True] * 4, [True, True, False, False]]))
    torch.testing.assert_close(ragged[:, :1], logits_of(method, features, texts(vectors[:1])))
    torch.testing.assert_close(ragged[:, 1:], logits_of(method, features, texts(vectors[1:, :2])))


def test_a_wrong_number_of_crop_weights_says_how_many_are_needed(unit, texts, logits_of):
    method = {"name": "dnd", "crop_weights": [1, 2], "include_global": True}
    with pytest.raises(
        ValueError, match=r"2 `crop_weights` for 5 crops, the whole image among them; give one for each"
    ):
        logits_of(method, Features(unit(1, 8), unit(1, 4, 8)), texts(unit(2, 3, 8)))
