"""ABS: the worked examples of soft matching, and the paper's ablations as settings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stages.methods import Features, parse_method
from stages.methods.abs import Abs


@pytest.fixture
def example(with_cosines, texts):
    """One crop, cosines A (.30, .20), B (.28, .27) (algorithms.md 8.4)."""
    crops, descriptions = with_cosines([[[0.30, 0.20]], [[0.28, 0.27]]])
    return Features(whole=crops[:, 0], raw=crops), texts(descriptions)


@pytest.fixture
def ragged(with_cosines, texts):
    """The same with B's second description said twice."""
    crops, descriptions = with_cosines([[[0.30, 0.20, 0.0]], [[0.28, 0.27, 0.27]]])
    return Features(whole=crops[:, 0], raw=crops), texts(descriptions, [[True, True, False], [True, True, True]])


@pytest.mark.parametrize(
    ("settings", "scores"),
    [({}, [5.341, 4.227]), ({"temperature": 1.0}, [0.1247, 0.1391]), ({"crops": "whole"}, [5.341, 4.227])],
    ids=str,
)
def test_soft_matching_scores_the_worked_example(settings, scores, example, logits_of):
    assert logits_of({"name": "abs", **settings}, *example)[0].tolist() == pytest.approx(scores, abs=1e-3)


@pytest.mark.parametrize(
    ("prior", "scores"), [("none", [4.481, 4.995]), ("auto", [5.479, 4.072]), ("equal", [5.479, 4.072])]
)
def test_ragged_classes_start_with_equal_mass_unless_told_otherwise(prior, scores, ragged, logits_of):
    assert logits_of({"name": "abs", "prior": prior}, *ragged)[0].tolist() == pytest.approx(scores, abs=1e-3)


def test_a_shift_adds_each_class_s_share_of_the_votes_and_leaves_the_shares_as_they_are(example, logits_of):
    shares = logits_of({"name": "abs", "shift": 0.3}, *example) - logits_of("abs", *example)
    assert shares[0].tolist() == pytest.approx([10 * 0.5403, 10 * 0.4597], abs=2e-3)


def test_probabilities_do_not_depend_on_how_often_a_crop_stands_there(example, logits_of):
    once, described = example
    method, logits = parse_method("abs"), logits_of("abs", *example)
    often = Features(once.whole, once.raw.expand(1, 60, -1), once.raw.expand(1, 60, -1))
    more = logits_of(method, often, described)
    torch.testing.assert_close(more, 120 * logits)
    torch.testing.assert_close(
        (more * method.probability_scale(often)).softmax(dim=-1),
        (logits * method.probability_scale(once)).softmax(dim=-1),
    )


def test_the_confidence_temperature_divides_the_logits_of_a_crop(example):
    features, _ = example
    assert parse_method("abs").probability_scale(features) == pytest.approx(50)
    assert parse_method({"name": "abs", "confidence_temperature": 4.0}).probability_scale(features) == 0.25
    of_means = {"name": "abs", "matching": "mean", "confidence_temperature": 4.0}
    assert parse_method(of_means).probability_scale(features) == 1.0


@pytest.fixture
def crowd(unit, texts):
    """Two images with five raw and three feature crops; four classes of six descriptions."""
    return Features(unit(2, 8), unit(2, 5, 8, seed=1), unit(2, 3, 8, seed=2)), texts(unit(4, 6, 8, seed=3))


def test_abs_takes_the_crops_it_is_told_to(crowd, logits_of):
    features, described = crowd
    score = {
        crops: logits_of({"name": "abs", "crops": crops}, features, described) for crops in ("both", "raw", "feature")
    }
    torch.testing.assert_close(score["both"], score["raw"] + score["feature"])
    assert parse_method("abs").probability_scale(features) == pytest.approx(50 / 8)
    without = Features(features.whole, features.raw)
    torch.testing.assert_close(logits_of("abs", without, described), score["raw"])
    assert parse_method("abs").probability_scale(without) == pytest.approx(50 / 5)


def test_the_whole_image_alone_is_one_row_and_needs_no_views(crowd, logits_of):
    features, described = crowd
    method = parse_method({"name": "abs", "crops": "whole"})
    assert not method.needs_views
    assert not method.reads_feature_crops
    as_crop = Features(features.whole, features.whole.unsqueeze(1))
    expected = logits_of({"name": "abs", "crops": "raw"}, as_crop, described)
    torch.testing.assert_close(logits_of(method, Features(features.whole), described), expected)
    assert method.probability_scale(Features(features.whole)) == pytest.approx(50)


def test_matching_by_means_is_cupl_with_the_mean_of_the_rows(crowd, logits_of):
    features, described = crowd
    rows = {
        "both": torch.cat([features.raw, features.crops], dim=1),
        "raw": features.raw,
        "feature": features.crops,
        "whole": features.whole.unsqueeze(1),
    }
    for crops, some in rows.items():
        mean = Features(F.normalize(some.mean(dim=1), dim=-1))
        found = logits_of({"name": "abs", "crops": crops, "matching": "mean"}, features, described)
        torch.testing.assert_close(found, logits_of("cupl", mean, described))
    method = parse_method({"name": "abs", "matching": "mean"})
    assert method.probability_scale(features) == 1.0
    assert method.prepare(described).shape == (4, 8)


def test_only_abs_reads_feature_crops_and_not_when_it_is_raw_or_whole():
    reading = {crops: parse_method({"name": "abs", "crops": crops}).reads_feature_crops for crops in ("both", "raw")}
    assert reading == {"both": True, "raw": False}
    assert parse_method({"name": "abs", "crops": "feature"}).reads_feature_crops
    assert not parse_method("dnd").reads_feature_crops


def test_max_crops_cuts_both_kinds_of_crops(crowd, logits_of):
    features, described = crowd
    method = parse_method({"name": "abs", "max_crops": 2})
    some = Features(features.whole, features.raw[:, :2], features.crops[:, :2])
    torch.testing.assert_close(logits_of(method, features, described), logits_of("abs", some, described))
    assert method.probability_scale(features) == pytest.approx(12.5)


def test_abs_reads_fifty_descriptions_of_a_class_and_when_asked_as_many_of_each():
    many = [f"Mark {number}." for number in range(60)]
    assert parse_method("abs").class_prompts(["jay"], [many], "sentences") == [many[:50]]
    two = parse_method({"name": "abs", "max_descriptors": 2})
    assert two.class_prompts(["jay", "wren"], [many, ["Short."]], "sentences") == [many[:2], ["Short."]]
    least = parse_method({"name": "abs", "truncate_to_min": True})
    assert least.class_prompts(["jay", "wren"], [many, ["A.", "B."]], "sentences") == [many[:2], ["A.", "B."]]


def test_the_fewest_descriptions_are_counted_once_and_not_again_for_every_class(monkeypatch):
    counted = []

    class Counted(list):
        def __len__(self) -> int:
            counted.append(self)
            return super().__len__()

    monkeypatch.setattr(Abs, "prompts", lambda self, name, descriptors, form: Counted(descriptors))
    method = parse_method({"name": "abs", "truncate_to_min": True})
    found = method.class_prompts(["jay", "wren", "tit"], [["A.", "B."], ["C."], ["D."]], "sentences")
    assert found == [["A."], ["C."], ["D."]]
    assert len(counted) == 3


def test_abs_without_feature_crops_says_which_setting_would_supply_them(unit, texts, logits_of):
    with pytest.raises(ValueError, match="feature_crops: true"):
        logits_of({"name": "abs", "crops": "feature"}, Features(unit(1, 8), unit(1, 4, 8)), texts(unit(2, 3, 8)))
