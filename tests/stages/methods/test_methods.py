from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stages.methods import METHODS, Features, Texts, parse_method

PROMPTED = ["cupl", "crops_mean", "dnd", "abs"]


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def texts(vectors, mask=None, scale: float = 100.0) -> Texts:
    vectors = torch.as_tensor(vectors, dtype=torch.float32)
    mask = torch.ones(vectors.shape[:2], dtype=torch.bool) if mask is None else torch.tensor(mask)
    return Texts(vectors=vectors, mask=mask, logit_scale=scale)


def with_cosines(cosines: list[list[list[float]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops [1, N, N + 1] and texts [C, M, N + 1] whose cosines are the given [C, N, M]."""
    along = torch.tensor(cosines).transpose(1, 2)
    rest = (1 - along.square().sum(dim=-1, keepdim=True)).sqrt()
    crops = along.shape[-1]
    return torch.eye(crops, crops + 1).unsqueeze(0), torch.cat([along, rest], dim=-1)


def test_clip_scores_the_worked_example():
    logits = parse_method("clip").logits(
        Features(whole=torch.tensor([[1.0, 0.0]])), texts([[[0.6, 0.8]], [[0.8, 0.6]]])
    )
    assert logits[0].tolist() == pytest.approx([60.0, 80.0])


def test_clip_says_the_class_name_once_and_reads_no_descriptors():
    assert parse_method("clip").prompts("blue_jay", None, "sentences") == ["a photo of a blue jay."]
    assert parse_method({"name": "clip", "template": "a {class}, a bird."}).prompts("jay", ["x"], "attributes") == [
        "a jay, a bird."
    ]


def test_cupl_scores_the_rescaled_mean_and_ignores_padding():
    logits = parse_method("cupl").logits(
        Features(whole=torch.tensor([[1.0, 0.0]])),
        texts([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0]]], [[True, True], [True, False]]),
    )
    assert logits[0].tolist() == pytest.approx([70.71, 60.0], abs=0.01)


def test_averaging_says_b_and_transport_says_a_in_the_worked_example():
    crops, descriptions = with_cosines([[[0.30, 0.20], [0.22, 0.28]], [[0.30, 0.24], [0.29, 0.21]]])
    features = Features(whole=crops[:, 0], raw=crops)
    mean = parse_method({"name": "crops_mean", "renormalize": False}).logits(features, texts(descriptions))
    assert mean[0].tolist() == pytest.approx([25.0, 26.0], abs=1e-3)
    transported = parse_method("dnd").logits(features, texts(descriptions))
    assert transported[0].tolist() == pytest.approx([26.520, 26.025], abs=1e-3)
    vague = parse_method({"name": "dnd", "epsilon": 1e3}).logits(features, texts(descriptions))
    torch.testing.assert_close(vague, mean, atol=1e-3, rtol=0)


def test_crops_mean_is_cupl_with_the_mean_crop_for_the_whole_image():
    raw, described = unit(2, 5, 8), texts(unit(3, 4, 8, seed=1))
    mean_crop = F.normalize(raw.mean(dim=1), dim=-1)
    expected = parse_method("cupl").logits(Features(whole=mean_crop), described)
    torch.testing.assert_close(parse_method("crops_mean").logits(Features(unit(2, 8), raw), described), expected)


def test_dnd_counts_the_whole_image_as_a_crop_when_asked():
    whole, raw, described = unit(2, 8), unit(2, 5, 8, seed=1), texts(unit(3, 4, 8, seed=2))
    asked = parse_method({"name": "dnd", "include_global": True}).logits(Features(whole, raw), described)
    by_hand = torch.cat([raw, whole.unsqueeze(1)], dim=1)
    torch.testing.assert_close(asked, parse_method("dnd").logits(Features(whole, by_hand), described))


def test_dnd_adds_the_weighted_cosine_of_image_and_label():
    method = parse_method({"name": "dnd", "global_weight": 0.5})
    assert method.prompts("blue_jay", ["A crest."], "sentences") == ["a photo of a blue jay.", "A crest."]
    whole, raw, labels, described = (
        unit(2, 8),
        unit(2, 5, 8, seed=1),
        unit(3, 1, 8, seed=2),
        unit(3, 4, 8, seed=3),
    )
    together = method.logits(Features(whole, raw), texts(torch.cat([labels, described], dim=1)))
    alone = parse_method("dnd").logits(Features(whole, raw), texts(described))
    torch.testing.assert_close(together, alone + 0.5 * 100 * whole @ labels[:, 0].T)


def test_abs_scores_the_worked_example_and_its_probabilities_do_not_depend_on_how_often_a_crop_stands_there():
    crops, descriptions = with_cosines([[[0.30, 0.20]], [[0.28, 0.27]]])
    method = parse_method("abs")
    once = Features(whole=crops[:, 0], raw=crops)
    logits = method.logits(once, texts(descriptions))
    assert logits[0].tolist() == pytest.approx([5.341, 4.227], abs=1e-3)
    often = Features(whole=crops[:, 0], raw=crops.expand(1, 60, -1), crops=crops.expand(1, 60, -1))
    more = method.logits(often, texts(descriptions))
    torch.testing.assert_close(more, 120 * logits)
    torch.testing.assert_close(
        (more * method.probability_scale(often)).softmax(dim=-1),
        (logits * method.probability_scale(once)).softmax(dim=-1),
    )


def test_abs_takes_the_crops_it_is_told_to():
    whole, raw, cropped, described = (
        unit(2, 8),
        unit(2, 5, 8, seed=1),
        unit(2, 3, 8, seed=2),
        texts(unit(4, 6, 8)),
    )
    score = {
        crops: parse_method({"name": "abs", "crops": crops}).logits(Features(whole, raw, cropped), described)
        for crops in ("both", "raw", "feature")
    }
    torch.testing.assert_close(score["both"], score["raw"] + score["feature"])
    assert parse_method("abs").probability_scale(Features(whole, raw, cropped)) == pytest.approx(1 / 8)
    only_raw = parse_method("abs").logits(Features(whole, raw), described)
    torch.testing.assert_close(only_raw, score["raw"])
    assert parse_method("abs").probability_scale(Features(whole, raw)) == pytest.approx(1 / 5)


def test_only_abs_reads_feature_crops_and_not_when_it_is_raw():
    reading = [name for name in METHODS if parse_method(name).reads_feature_crops]
    assert reading == ["abs"]
    assert parse_method({"name": "abs", "crops": "feature"}).reads_feature_crops
    assert not parse_method({"name": "abs", "crops": "raw"}).reads_feature_crops


def test_abs_reads_the_first_descriptions_up_to_its_limit():
    method = parse_method({"name": "abs", "max_descriptors": 2})
    assert method.prompts("jay", ["One.", "Two.", "Three."], "sentences") == ["One.", "Two."]


@pytest.mark.parametrize("name", PROMPTED)
def test_sentences_stay_as_they_are_and_attributes_are_completed(name):
    method = parse_method(name)
    assert method.prompts("blue_jay", ["A jay.", "Its {crest}."], "sentences") == ["A jay.", "Its {crest}."]
    completed = ["a photo of a blue jay, which is a crest."]
    assert method.prompts("blue_jay", ["a crest"], "attributes") == completed


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize("descriptors", [None, []])
def test_a_class_without_descriptors_is_refused_with_the_setting_that_would_help(name, descriptors):
    with pytest.raises(ValueError, match=f"method '{name}' has no descriptors for class 'jay'.*`descriptors`"):
        parse_method(name).prompts("jay", descriptors, "sentences")


@pytest.mark.parametrize("name", ["crops_mean", "dnd", "abs"])
def test_a_method_without_its_crops_says_which_setting_would_supply_them(name):
    with pytest.raises(ValueError, match=f"method '{name}' reads crops; name a view set in its `views`"):
        parse_method(name).logits(Features(unit(1, 8)), texts(unit(2, 3, 8)))


def test_abs_without_feature_crops_says_which_setting_would_supply_them():
    with pytest.raises(ValueError, match="feature_crops: true"):
        parse_method({"name": "abs", "crops": "feature"}).logits(
            Features(unit(1, 8), unit(1, 4, 8)), texts(unit(2, 3, 8))
        )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_probabilities_that_sum_to_one(name):
    method = parse_method(name)
    features = Features(unit(3, 8), unit(3, 60, 8, seed=1), unit(3, 60, 8, seed=2))
    logits = method.logits(features, texts(unit(5, 4, 8, seed=3)))
    assert logits.shape == (3, 5)
    assert logits.dtype == torch.float32
    probabilities = (logits * method.probability_scale(features)).softmax(dim=-1)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(3))


@pytest.mark.parametrize("name", ["clip", "cupl", "crops_mean", "dnd"])
def test_the_models_own_logit_scale_is_used(name):
    features, vectors = Features(unit(2, 8), unit(2, 5, 8, seed=1)), unit(3, 4, 8, seed=2)
    at_hundred = parse_method(name).logits(features, texts(vectors))
    at_sixteen = parse_method(name).logits(features, texts(vectors, scale=16.0))
    torch.testing.assert_close(at_sixteen, at_hundred * 0.16)
