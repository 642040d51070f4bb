"""Work that several methods ask for is done once, and each is told what it would have cost alone."""

from __future__ import annotations

import pytest
import torch

from stages.methods import Features, parse_method, shared
from stages.methods.shared import Shared


@pytest.fixture
def clock(monkeypatch):
    """`clock.work(seconds, value)` -> a computation that takes so long on the clock that Shared reads."""

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

        def work(self, seconds: float, value: str, count: list[str]):
            def compute() -> str:
                self.now += seconds
                count.append(value)
                return value

            return compute

    clock = Clock()
    monkeypatch.setattr(shared, "time", clock)
    return clock


def test_a_value_is_worked_out_by_the_first_who_asks_and_its_cost_told_to_the_others(clock):
    shared, done = Shared(), []
    assert shared.once("a", clock.work(2.0, "A", done)) == "A"
    assert shared.borrowed == 0.0
    assert shared.once("a", clock.work(9.0, "never", done)) == "A"
    assert shared.once("b", clock.work(0.5, "B", done)) == "B"
    assert shared.borrowed == 2.0
    shared.borrowed = 0.0
    assert [shared.once(key, clock.work(9.0, "never", done)) for key in "ab"] == ["A", "B"]
    assert shared.borrowed == 2.5
    assert done == ["A", "B"]


def test_who_borrows_a_value_that_was_made_from_a_borrowed_one_is_told_the_cost_of_both(clock):
    shared, done = Shared(), []
    shared.once("inner", clock.work(3.0, "inner", done))

    def outer() -> str:
        return shared.once("inner", clock.work(9.0, "never", done)) + clock.work(1.0, " and outer", done)()

    assert shared.once("outer", outer) == "inner and outer"
    assert shared.borrowed == 3.0
    shared.borrowed = 0.0
    shared.once("outer", outer)
    assert shared.borrowed == 4.0


def test_a_computation_that_fails_is_not_remembered(clock):
    shared = Shared()
    with pytest.raises(ZeroDivisionError):
        shared.once("a", lambda: 1 / 0)
    assert shared.once("a", lambda: 1) == 1


def test_every_batch_of_features_has_a_memory_of_its_own(unit):
    first, second = Features(unit(1, 4)), Features(unit(1, 4))
    first.shared.once("a", lambda: 1)
    assert second.shared.once("a", lambda: 2) == 2


@pytest.fixture
def matched(monkeypatch):
    """The number of rows of each call of soft_match."""
    from stages.matching import soft

    calls, real = [], soft.soft_match

    def counted(rows, *args, **settings):
        calls.append(rows.shape[1])
        return real(rows, *args, **settings)

    monkeypatch.setattr(soft, "soft_match", counted)
    return calls


def test_the_ablations_of_abs_match_each_kind_of_crops_once(unit, texts, matched):
    features = Features(unit(2, 8), unit(2, 5, 8, seed=1), unit(2, 3, 8, seed=2))
    described = texts(unit(4, 6, 8, seed=3))
    methods = [parse_method({"name": "abs", "crops": crops}) for crops in ("both", "raw", "feature")]
    together = [method.logits(features, method.prepare(described)) for method in methods]
    assert sorted(matched) == [3, 5]
    for method, logits in zip(methods, together, strict=True):
        alone = Features(features.whole, features.raw, features.crops)
        torch.testing.assert_close(logits, method.logits(alone, method.prepare(described)), atol=0, rtol=0)


@pytest.mark.parametrize(
    "other",
    [{"temperature": 0.5}, {"shift": 0.5}, {"prior": "none"}, {"max_crops": 4}],
    ids=lambda other: next(iter(other)),
)
def test_abs_with_another_setting_matches_anew(other, unit, texts, matched):
    features, described = Features(unit(2, 8), unit(2, 5, 8, seed=1)), texts(unit(4, 6, 8, seed=3))
    for settings in ({}, other):
        method = parse_method({"name": "abs", "crops": "raw", **settings})
        method.logits(features, method.prepare(described))
    assert len(matched) == 2


def test_abs_with_other_texts_matches_anew_though_they_are_equal(unit, texts, matched):
    features, method = Features(unit(2, 8), unit(2, 5, 8, seed=1)), parse_method("abs")
    for _ in range(2):  # the first texts may be freed before the second are made
        method.logits(features, method.prepare(texts(unit(4, 6, 8, seed=3))))
    assert len(matched) == 2


def test_the_draws_of_wca_compare_crops_with_the_whole_image_once(unit, texts, monkeypatch):
    features, described = Features(unit(2, 8), unit(2, 9, 8, seed=1)), texts(unit(3, 5, 8, seed=2))
    method = parse_method({"name": "wca", "preset": "wca_code", "sample": 6})
    prepared = method.prepare(described)
    calls, real = [], torch.einsum
    monkeypatch.setattr(torch, "einsum", lambda *args: (calls.append(args[0]), real(*args))[1])
    for variant in method.variants():
        variant.logits(features, prepared)
    assert calls == ["bnd,bd->bn"]
