"""The encoder actor on its own: what it does when batches come before its models are loaded, and what it refuses."""

from __future__ import annotations

import threading

import pytest

from stages.encode_images import _EncodeActor
from stages.settings import GuidedView, ModelSettings, RandomGuide


@pytest.fixture
def actor(tiny_model, tmp_path):
    """`actor(view)` -> an actor for one view set of a model of two blocks, not set up yet."""

    def make(view: GuidedView) -> _EncodeActor:
        tables = [("whole", str(tmp_path / "whole"), None), ("views.guided", str(tmp_path / "views"), (view, 0))]
        model, guides = ModelSettings(name=f"local-dir:{tiny_model}"), {"random": RandomGuide()}
        return _EncodeActor(model, guides, "fp32", "cpu", 1, tables, "run", str(tmp_path / "weights.json"))

    return make


def test_a_batch_that_comes_before_the_models_are_loaded_waits_for_them(actor):
    answers, loading = [], actor(GuidedView(guide="random", crops=2))
    early = threading.Thread(target=lambda: answers.append(loading.encode([])))
    early.start()
    assert answers == []
    loading.setup()
    early.join(timeout=60)
    assert answers == [(0, [], {"decode": 0})]


def test_a_layer_that_the_model_does_not_have_is_told_before_any_image_is_encoded(actor):
    with pytest.raises(ValueError, match=r"views\.guided\.layer is 2, .* before layer 0 to 1"):
        actor(GuidedView(guide="random", crops=2, layer=2)).setup()
