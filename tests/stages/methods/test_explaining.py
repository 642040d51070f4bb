"""Explanations: the parts of a logit add up to that logit, whatever the settings."""

from __future__ import annotations

import pytest
import torch

from stages.methods import Features, parse_method
from stages.methods.dnd import Dnd
from stages.methods.explaining import explains

MASK = [[True] * 5, [True, True, True, False, False], [True] * 4 + [False], [True] * 5]
SETTINGS = [
    {"name": "dnd"},
    {"name": "dnd", "epsilon": 0.01, "iterations": 300, "include_global": True, "max_crops": 3},
    {"name": "dnd", "text_weights": "relevance", "crop_weights": "relevance", "global_weight": 0.7},
    {"name": "dnd", "crop_weights": [1, 0, 2, 1.0]},
    {"name": "dnd", "solver": "exact"},
    {"name": "dnd", "solver": "pot"},
    {"name": "abs"},
    {"name": "abs", "prior": "none", "temperature": 0.2, "shift": 0.5},
    {"name": "abs", "crops": "feature", "max_crops": 2},
    {"name": "abs", "crops": "whole"},
    {"name": "abs", "matching": "mean"},
    {"name": "crops_mean"},
    {"name": "crops_mean", "renormalize": False, "max_crops": 2},
    {"name": "wca"},
    {"name": "wca", "renormalize": False, "sample": 3},
]


@pytest.fixture
def image(unit):
    """One image with four raw and three feature crops."""
    return Features(unit(1, 8), unit(1, 4, 8, seed=1), unit(1, 3, 8, seed=2))


@pytest.fixture
def described(unit, texts):
    return texts(unit(4, 5, 8, seed=3), MASK)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_contributions_and_the_rest_add_up_to_the_logits(settings, image, described, logits_of):
    method, classes = parse_method(settings), [2, 0, 1]
    spoken = method.explain(image, described, classes)
    logits = logits_of(method, image, described)[0, classes]
    together = spoken.contributions.sum(dim=(1, 2)) + spoken.rest
    torch.testing.assert_close(together, logits, atol=1e-4, rtol=1e-5)
    texts = 5 - spoken.first_text
    assert spoken.mass.shape == spoken.cosines.shape == (3, len(spoken.rows), texts)
    assert (spoken.mass >= 0).all()
    assert (spoken.mass[2, :, 3 - spoken.first_text :] == 0).all()


@pytest.mark.parametrize("name", ["dnd", "crops_mean", "wca"])
def test_plans_and_weighted_means_share_out_a_mass_of_one_in_every_class(name, image, described):
    spoken = parse_method(name).explain(image, described, [0, 1, 2, 3])
    torch.testing.assert_close(spoken.mass.sum(dim=(1, 2)), torch.ones(4))


def test_a_row_s_votes_are_one_over_all_classes(image, described):
    spoken = parse_method("abs").explain(image, described, [0, 1, 2, 3])
    torch.testing.assert_close(spoken.mass.sum(dim=(0, 2)), torch.ones(7))


def test_rows_are_named_by_kind_and_by_number_in_the_view_set(image, described):
    rows = parse_method("abs").explain(image, described, [0]).rows
    assert rows == [*(("feature", number) for number in range(3)), *(("raw", number) for number in range(4))]
    method = parse_method({"name": "dnd", "include_global": True, "max_crops": 2})
    assert method.explain(image, described, [0]).rows == [("raw", 0), ("raw", 1), ("whole", 0)]
    assert parse_method({"name": "abs", "crops": "whole"}).explain(image, described, [0]).rows == [("whole", 0)]


def test_a_crop_that_was_not_drawn_or_has_no_weight_speaks_for_nothing(image, described):
    spoken = parse_method({"name": "dnd", "crop_weights": [1, 0, 1.0, 1]}).explain(image, described, [0])
    assert (spoken.contributions[:, 1] == 0).all()
    drawn_once = parse_method({"name": "wca", "sample": 1}).explain(image, described, [0])
    assert sorted(drawn_once.mass[0].sum(dim=1).tolist()) == pytest.approx([0, 0, 0, 1])


def test_only_methods_of_pairs_of_crops_and_descriptions_explain_themselves():
    explained = {
        name
        for name in ("clip", "clip_e", "cupl", "waffle", "dnd", "abs", "crops_mean", "wca")
        if explains(parse_method(name))
    }
    assert explained == {"dnd", "abs", "crops_mean", "wca"}


def test_a_method_that_adds_to_another_s_logits_does_not_inherit_its_explanation():
    class More(Dnd):
        pass

    assert not explains(More())
