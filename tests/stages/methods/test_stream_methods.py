"""Test-time methods through their own logits: the worked example, presets, the surest versions of an image."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from stages.methods import TEST_TIME, Features, parse_method
from stages.methods.clip_e import ClipE
from stages.methods.dnd import Dnd
from stages.methods.stream import PRESETS, Preset

PUBLISHED = {
    "imagenet": (2, 5), "imagenet_a": (2, 5), "imagenet_r": (1, 8), "imagenet_v2": (1, 8),
    "imagenet_sketch": (2.363, 7.45), "caltech101": (5, 5), "flowers": (1, 5), "cars": (1, 7), "ucf101": (3, 8),
    "dtd": (2, 3), "eurosat": (4, 8), "fgvc": (2, 2), "food101": (1, 1), "pets": (2, 7), "sun397": (2, 3),
}  # fmt: skip
"""The table of section 10."""


def one_image(probabilities: list[float]) -> tuple[Features, torch.Tensor]:
    """An image on the only axis, and texts that give it these probabilities."""
    return Features(torch.ones(1, 1)), torch.tensor(probabilities).log().unsqueeze(1)


@pytest.mark.parametrize(
    ("probabilities", "voted_down"),
    [([0.4, 0.3, 0.2, 0.1], [0, 0, 0, 0]), ([0.9, 0.05, 0.0299, 0.0201], [1, 1, 0, 0])],
)
def test_the_worked_example_of_tda(probabilities, voted_down):
    """H / log2 C of .640 is above the window, that of .214 in it: the predicted class itself is voted down too."""
    image, texts = one_image(probabilities)
    found = parse_method("tda").logits(image, texts) - texts.T
    own = [2.0, 0.0, 0.0, 0.0]
    wanted = [vote - 0.117 * down for vote, down in zip(own, voted_down, strict=True)]
    assert found[0].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", TEST_TIME)
def test_an_image_in_its_own_cache_votes_for_itself_unless_it_is_excluded(name, texts, unit):
    described = texts(unit(4, 2, 8, seed=1), scale=20.0)
    features = Features(unit(1, 8, seed=2), unit(1, 3, 8, seed=3))
    votes = {}
    for exclude_self in (False, True):
        method = parse_method({"name": name, "exclude_self": exclude_self, "alpha": 3.0, "negative_capacity": 0})
        prepared = method.prepare(described)
        zero_shot = method.zero_shot(features, prepared)
        votes[exclude_self] = (method.logits(features, prepared) - zero_shot)[0].tolist()
    own = [0.0] * 4
    assert votes[True] == own
    own[int(zero_shot.argmax())] = 3.0
    assert votes[False] == pytest.approx(own, abs=1e-2)  # crops are kept in half precision


def test_before_anything_was_learned_logits_are_those_of_the_zero_shot_method(texts, unit):
    described = texts(unit(4, 3, 8, seed=1))
    features = Features(unit(5, 8, seed=2), unit(5, 3, 8, seed=3))
    for name, base in (("tda", ClipE()), ("dnd_tda", Dnd())):
        method = parse_method({"name": name, "capacity": 0, "negative_capacity": 0})
        prepared = method.prepare(described)
        wanted = base.logits(features, base.prepare(described))
        torch.testing.assert_close(method.zero_shot(features, prepared), wanted, atol=1e-5, rtol=1e-6)
        torch.testing.assert_close(method.logits(features, prepared), wanted, atol=1e-5, rtol=1e-6)


def test_presets_are_the_published_table_and_one_fixed_setting():
    assert {"fixed": (2, 5), **PUBLISHED} == PRESETS
    assert set(get_args(Preset)) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", TEST_TIME)
def test_a_preset_is_read_again_from_what_it_is_dumped_as_and_decides_the_votes(name, preset):
    method = parse_method({"name": name, "preset": preset})
    settings = method.settings()
    assert (settings.positive_alpha, settings.positive_beta) == PRESETS[preset]
    assert (settings.negative_alpha, settings.negative_beta) == (0.117, 1.0)
    dumped = method.model_dump()
    assert "preset" not in dumped, "alpha and beta say it"
    assert parse_method(dumped).settings() == settings


def test_settings_reach_the_stream_under_their_own_names():
    given = {
        "alpha": 1.5, "beta": 2.5, "capacity": 4, "negative_alpha": 0.3, "negative_beta": 1.75,
        "negative_capacity": 1, "min_entropy": 0.1, "max_entropy": 0.6, "min_probability": 0.05, "exclude_self": True,
    }  # fmt: skip
    settings = parse_method({"name": "tda", **given}).settings()
    assert vars(settings) == {
        "positive_alpha": 1.5, "positive_beta": 2.5, "positive_capacity": 4, "negative_alpha": 0.3,
        "negative_beta": 1.75, "negative_capacity": 1, "entropy_bounds": (0.1, 0.6), "mask_bounds": (0.05, 1.0),
        "exclude_self": True,
    }  # fmt: skip


def surest_six(versions: torch.Tensor, prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean feature and mean logits of the six of 64 versions whose entropy is least."""
    logits = versions @ prepared.T
    p = logits.softmax(dim=1)
    surest = sorted(range(64), key=lambda v: float(-(p[v] * p[v].log()).sum()))[:6]
    return versions[surest].mean(dim=0), logits[surest].mean(dim=0)


def test_an_image_in_64_versions_is_the_mean_of_its_six_surest_which_is_not_made_a_unit_row(texts, unit):
    features = Features(unit(3, 8, seed=2), unit(3, 63, 8, seed=3))
    method = parse_method({"name": "tda", "augmix": True, "capacity": 0, "negative_capacity": 0})
    prepared = method.prepare(texts(unit(5, 2, 8, seed=1), scale=6.0))
    found = method.logits(features, prepared)
    versions = torch.cat([features.whole.unsqueeze(1), features.raw], dim=1)
    for image in range(3):
        torch.testing.assert_close(found[image], surest_six(versions[image], prepared)[1], atol=1e-5, rtol=1e-5)
    voted = parse_method({"name": "tda", "augmix": True, "negative_capacity": 0}).logits(features, prepared)
    mean, logits = surest_six(versions[0], prepared)
    own = 2 * math.exp(-5 * (1 - float(mean @ mean)))
    best = int(logits.argmax())
    assert own < 1.9
    assert float(voted[0, best] - found[0, best]) == pytest.approx(own, abs=1e-4)


def test_versions_are_asked_for_by_the_name_of_the_setting(texts, unit):
    method = parse_method({"name": "tda", "augmix": True})
    with pytest.raises(ValueError, match="method 'tda' reads AugMix versions; name a view set in its `views`"):
        method.logits(Features(unit(1, 8)), method.prepare(texts(unit(2, 1, 8))))


@pytest.mark.parametrize("name", TEST_TIME)
def test_a_stream_of_some_classes_is_that_of_a_job_with_these_alone(name, texts, unit):
    vectors, features = unit(4, 2, 8, seed=1), Features(unit(30, 8, seed=2), unit(30, 3, 8, seed=3))
    method = parse_method({"name": name, "negative_alpha": 0.7, "min_entropy": 0.0, "max_entropy": 1.0})
    order, some = torch.arange(30).flip(0), torch.tensor([3, 1])
    whole = method.adapted(lambda: iter([features]), method.prepare(texts(vectors, scale=8.0)), order, some)
    few = method.prepare(texts(vectors[some], scale=8.0))
    alone = method.adapted(lambda: iter([features]), few, order, torch.arange(2))
    torch.testing.assert_close(whole, alone, atol=1e-4, rtol=1e-5)
