"""The job: what follows from the rest of the file, and what does not fit together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.settings import Job
from stages.methods import FEW_SHOT

SETS = {
    "dataset": {"path": "photos"},
    "descriptors": {"sentences": {"path": "marks.json"}},
    "views": {"random": {"crops": 4}, "plain": {"kind": "guided", "guide": "clip", "feature_crops": False}},
}


def job(*methods, **keys) -> Job:
    return Job.model_validate(SETS | {"methods": list(methods)} | keys)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "dnd", "max_crops": 5}, r"methods\.dnd\.max_crops: 5, and view set 'random' has 4 crops"),
        ({"name": "dnd", "crop_weights": [1.0, 2.0]}, r"methods\.dnd\.crop_weights: 2 weights for 4 crops"),
        (
            {"name": "dnd", "crop_weights": [1.0] * 4, "include_global": True},
            r"methods\.dnd\.crop_weights: 4 weights for 5 crops",
        ),
        (
            {"name": "abs", "crops": "feature", "views": "plain"},
            r"methods\.abs\.crops: view set 'plain' has no feature",
        ),
    ],
)
def test_crops_that_a_view_set_does_not_have_are_told_before_anything_runs(method, words):
    with pytest.raises(ValidationError, match=words):
        job(method)


def test_crops_that_fit_are_accepted():
    weights = {"name": "dnd", "max_crops": 2, "crop_weights": [1.0, 0.5, 2.0], "include_global": True}
    assert job(weights).methods[0].views == "random"


def test_a_method_told_to_read_the_whole_image_reads_no_views_and_none_are_encoded_for_it():
    whole = job({"name": "abs", "crops": "whole", "views": "guided"}, views={})
    assert whole.methods[0].views is None
    assert whole.views == {}


def test_without_methods_a_job_runs_all_that_share_their_view_sets():
    names = [method.name for method in job().methods]
    assert "wca" not in names
    assert {"clip", "clip_e", "clip_d", "clip_d_wca", "cupl", "waffle", "crops_mean", "dnd", "abs"} == set(names)
    assert [method.name for method in Job.model_validate({"dataset": {"path": "photos"}}).methods] == ["clip"]


def test_methods_that_follow_their_authors_code_find_their_views_and_a_change_of_these_keeps_the_rest():
    both = job("wca_code", "abs_code", views={"wca_code": {"crops": 70}, "guided": {"kind": "guided", "guide": "clip"}})
    assert (both.views["wca_code"].crops, both.views["wca_code"].min_side) == (70, 0.1)
    assert (both.views["abs_code"].crops, both.views["abs_code"].frame) == (50, "official")
    assert [method.views for method in both.methods] == ["wca_code", "abs_code"]


def few_shot_job(*methods, splits: dict | None, **keys) -> Job:
    return job(*methods, dataset={"path": "photos"} | ({} if splits is None else {"splits": splits}), **keys)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_a_few_shot_method_needs_a_support_split_and_a_search_that_was_asked_for_a_validation_split(name):
    with pytest.raises(
        ValidationError, match=rf"methods\.{name} reads labelled images: name the split .*support: train"
    ):
        few_shot_job(name, splits={"query": "test", "validation": "val"})
    without = {"query": "test", "support": "train"}
    with pytest.raises(ValidationError, match=r"methods\.m searches alpha and beta \(`search`\): .*validation: val"):
        few_shot_job({"name": name, "label": "m", "search": True}, splits=without)
    for search in (None, False):
        assert few_shot_job({"name": name, "search": search}, splits=without).methods[0].search is search
    few_shot_job({"name": name, "search": True}, splits=without | {"validation": "val"})
    few_shot_job({"name": name, "search": True}, splits=None)  # some kinds of data sets have splits of their own


def test_augmented_versions_of_shots_are_a_view_set_that_needs_no_entry():
    splits = {"query": "test", "support": "train"}
    tip = few_shot_job("tip", splits=splits)
    assert (tip.views["augmented"].kind, tip.views["augmented"].crops) == ("augmented", 10)
    own = few_shot_job("tip", splits=splits, views={"augmented": {"crops": 3, "flip": 0.0}})
    assert (own.views["augmented"].kind, own.views["augmented"].crops, own.views["augmented"].flip) == (
        "augmented",
        3,
        0,
    )
    assert "augmented" not in few_shot_job({"name": "tip", "augmented": False}, splits=splits).views
    assert "augmented" not in few_shot_job("dnd_tip", splits=splits).views


def test_augmented_versions_may_be_any_view_set_that_is_there_and_no_other():
    splits = {"query": "test", "support": "train"}
    own = few_shot_job({"name": "tip", "augmented_views": "random"}, splits=splits)
    assert set(own.views) == {"random", "plain"}
    with pytest.raises(
        ValidationError, match=r"methods\.tip\.augmented_views: no view set is called 'agumented'; .*random"
    ):
        few_shot_job({"name": "tip", "augmented_views": "agumented"}, splits=splits)


def test_tda_reads_no_views_but_with_augmix_the_versions_of_that_kind():
    plain, versions = job("tda"), job({"name": "tda", "augmix": True})
    assert (plain.methods[0].views, set(plain.views)) == (None, set(SETS["views"]))
    assert (versions.methods[0].views, versions.views["augmix"].crops) == ("augmix", 63)
