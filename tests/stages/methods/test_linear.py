"""Methods that compare one vector an image with one vector a class: the worked examples, and what they keep."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stages.methods import Features, parse_method

LINEAR = ["clip", "clip_e", "clip_d", "clip_d_wca", "cupl", "waffle", "wca", "crops_mean"]


def test_clip_scores_the_worked_example(texts, logits_of):
    image = Features(whole=torch.tensor([[1.0, 0.0]]))
    assert logits_of("clip", image, texts([[[0.6, 0.8]], [[0.8, 0.6]]]))[0].tolist() == pytest.approx([60.0, 80.0])


def test_clip_e_normalises_averages_and_normalises_again(texts, logits_of):
    image = Features(whole=torch.tensor([[1.0, 0.0]]))
    logits = logits_of("clip_e", image, texts([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.6, 0.8]]]))
    assert logits[0].tolist() == pytest.approx([70.71, 60.0], abs=0.01)


def test_clip_d_says_b_and_its_rescaled_form_says_a_in_the_worked_example(texts, logits_of):
    image = Features(whole=torch.tensor([[1.0, 0.0]]))
    described = texts([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.0, 0.0]]], [[True, True], [True, False]])
    assert logits_of("clip_d", image, described)[0].tolist() == pytest.approx([50.0, 60.0])
    rescaled = [70.71, 60.0]
    assert logits_of("clip_d_wca", image, described)[0].tolist() == pytest.approx(rescaled, abs=0.01)
    asked = {"name": "clip_d", "renormalize": True}
    assert logits_of(asked, image, described)[0].tolist() == pytest.approx(rescaled, abs=0.01)


def test_cupl_scores_the_rescaled_mean_and_ignores_padding(texts, logits_of):
    logits = logits_of(
        "cupl",
        Features(whole=torch.tensor([[1.0, 0.0]])),
        texts([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0]]], [[True, True], [True, False]]),
    )
    assert logits[0].tolist() == pytest.approx([70.71, 60.0], abs=0.01)


def test_waffle_takes_the_mean_of_cosines_or_where_asked_the_rescaled_mean(unit, texts, logits_of):
    image, prompts = Features(unit(3, 8)), texts(unit(4, 30, 8, seed=1))
    cosines = torch.einsum("bd,cmd->bcm", image.whole, prompts.vectors)
    torch.testing.assert_close(logits_of("waffle", image, prompts), 100 * cosines.mean(dim=2))
    rescaled = logits_of({"name": "waffle", "renormalize": True}, image, prompts)
    torch.testing.assert_close(rescaled, logits_of("cupl", image, prompts))


def test_crops_mean_is_cupl_with_the_mean_crop_for_the_whole_image(unit, texts, logits_of):
    raw, described = unit(2, 5, 8), texts(unit(3, 4, 8, seed=1))
    expected = logits_of("cupl", Features(whole=F.normalize(raw.mean(dim=1), dim=-1)), described)
    torch.testing.assert_close(logits_of("crops_mean", Features(unit(2, 8), raw), described), expected)


def test_crops_mean_as_it_is_is_the_mean_of_all_cosines_also_where_classes_are_ragged(unit, texts, logits_of):
    raw = unit(2, 5, 8)
    described = texts(unit(2, 3, 8, seed=1), [[True, True, True], [True, False, False]])
    logits = logits_of({"name": "crops_mean", "renormalize": False}, Features(unit(2, 8), raw), described)
    for image in range(2):
        for number, count in enumerate((3, 1)):
            cosines = raw[image] @ described.vectors[number, :count].T
            assert logits[image, number].item() == pytest.approx(100 * cosines.mean().item(), abs=1e-4)


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_method_keeps_one_vector_a_class_of_its_texts(name, unit, texts):
    assert parse_method(name).prepare(texts(unit(4, 30, 8))).shape == (4, 8)
