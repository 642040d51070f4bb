"""Few-shot methods: zero-shot logits and the votes of a cache, by hand and against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from stages.matching.cache import Keys
from stages.methods import FEW_SHOT, Features, parse_method
from stages.methods.clip_e import ClipE
from stages.methods.dnd import Dnd
from stages.methods.few_shot import Cache

ALPHA, BETA = 1.75, 4.0


def one_key_a_class(cosines: list[float]) -> Keys:
    """Keys whose cosine with the first axis is given, one a class."""
    rows = torch.tensor([[cosine, math.sqrt(1 - cosine**2)] for cosine in cosines])
    return Keys(rows, torch.arange(len(cosines)), torch.zeros(len(cosines), dtype=torch.int64))


@pytest.mark.parametrize(
    ("alpha", "beta", "wanted"), [(1.0, 5.5, [25.58, 26.11]), (1.0, 1.0, [25.905, 26.670]), (0.0, 1.0, [25.0, 26.0])]
)
def test_the_worked_example_of_tip(alpha, beta, wanted):
    image, texts = Features(torch.tensor([[1.0, 0.0]])), torch.tensor([[25.0, 3.0], [26.0, -7.0]])
    cache = Cache(one_key_a_class([0.9, 0.6]), alpha, beta)
    for name in ("tip", "tip_f"):
        found = parse_method(name).logits(image, (texts, cache))
        assert found[0].tolist() == pytest.approx(wanted, abs=6e-3)


@pytest.fixture
def described(texts, unit):
    """Three classes of 3, 1 and 2 descriptions."""
    return texts(unit(3, 3, 8, seed=1), [[True, True, True], [True, False, False], [True, True, False]])


@pytest.fixture
def keys(unit) -> Keys:
    """Two shots a class, a key for each description of each, in no order of classes."""
    places = [(2, 0), (2, 1), (0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (1, 0), (0, 0), (0, 1), (0, 2)]
    return Keys(unit(12, 8, seed=2), *(torch.tensor(column) for column in zip(*places, strict=True)))


def votes_by_loops(query: str, features: Features, described, keys: Keys) -> torch.Tensor:
    """Section 7.2, step 2, as it is printed; float64."""
    votes = torch.zeros(len(features.whole), 3, dtype=torch.float64)
    counts = described.mask.sum(dim=1).tolist()
    for image, (whole, crops) in enumerate(zip(features.whole.double(), features.raw.double(), strict=True)):
        for key, owner, number in zip(
            keys.vectors.double(), keys.owners.tolist(), keys.descriptors.tolist(), strict=True
        ):
            if query == "global":
                asked = [whole]
            elif query == "all":
                asked = list(crops)
            else:
                asked = [max(crops, key=lambda crop, o=owner, n=number: float(crop @ described.vectors[o, n].double()))]
            said = sum(math.exp(-BETA * (1 - float(one @ key))) for one in asked)
            votes[image, owner] += said / len(asked) / counts[owner]
    return votes


@pytest.mark.parametrize("query", ["aligned", "all", "global"])
def test_dnd_tip_asks_its_cache_as_plain_loops_do(query, described, keys, unit):
    method = parse_method({"name": "dnd_tip", "query": query})
    features, texts = Features(unit(4, 8, seed=3), unit(4, 5, 8, seed=4)), method.prepare(described)
    wanted = Dnd().logits(features, texts) + ALPHA * votes_by_loops(query, features, described, keys)
    found = method.logits(features, (texts, Cache(keys, ALPHA, BETA)))
    torch.testing.assert_close(found.double(), wanted.double(), atol=1e-4, rtol=1e-5)


def test_dnd_tip_asks_with_the_crops_that_it_reads_and_with_descriptions_apart_from_the_label(
    described, keys, unit, texts
):
    with_label = texts(
        torch.cat([unit(3, 1, 8, seed=9), described.vectors], dim=1), [[True, *row] for row in described.mask.tolist()]
    )
    method = parse_method({"name": "dnd_tip", "max_crops": 2, "global_weight": 0.5})
    features = Features(unit(4, 8, seed=3), unit(4, 5, 8, seed=4))
    read = Features(features.whole, features.raw[:, :2])
    zero_shot = Dnd(max_crops=2, global_weight=0.5)
    wanted = zero_shot.logits(features, zero_shot.prepare(with_label))
    wanted = wanted + ALPHA * votes_by_loops("aligned", read, described, keys)
    found = method.logits(features, (method.prepare(with_label), Cache(keys, ALPHA, BETA)))
    torch.testing.assert_close(found.double(), wanted.double(), atol=1e-4, rtol=1e-5)


def test_a_shot_that_comes_by_again_is_as_near_as_can_be(described, unit):
    method = parse_method({"name": "dnd_tip"})
    crops, own = unit(1, 5, 8, seed=4), described.vectors[0]
    chosen = crops[0, (crops[0] @ own.T).argmax(dim=0)]
    keys = Keys(chosen, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    features, prepared = Features(unit(1, 8, seed=3), crops), method.prepare(described)
    found = method.logits(features, (prepared, Cache(keys, ALPHA, BETA)))
    torch.testing.assert_close(
        found - Dnd().logits(features, prepared), torch.tensor([[ALPHA, 0.0, 0.0]]), atol=1e-4, rtol=0
    )


@pytest.fixture
def scored(monkeypatch):
    """How often each zero-shot method has made logits."""
    calls: list[str] = []
    for kind in (ClipE, Dnd):
        real = kind.logits

        def counted(self, features, prepared, kind=kind, real=real):
            calls.append(kind.__name__)
            return real(self, features, prepared)

        monkeypatch.setattr(kind, "logits", counted)
    return calls


def test_variants_share_the_logits_that_need_no_cache(scored, described, keys, unit):
    features = Features(unit(4, 8, seed=3), unit(4, 5, 8, seed=4))
    method = parse_method({"name": "dnd_tip", "shots": [1, 2, 4], "seeds": [1, 2]})
    prepared = method.prepare(described)
    caches = [Cache(keys, alpha, BETA) for alpha in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)]
    asked = zip(method.variants(), caches, strict=True)
    found = [variant.logits(features, (prepared, cache)) for variant, cache in asked]
    assert scored == ["Dnd"]
    for number, logits in enumerate(found):
        torch.testing.assert_close(logits - found[0], number * (found[1] - found[0]), atol=1e-4, rtol=0)
    trained = parse_method({"name": "dnd_tip_f", "query": "all", "alpha": 3.0, "search": False})
    trained.logits(features, (prepared, caches[0]))
    assert scored == ["Dnd"], "so do other methods on the same ground"
    parse_method({"name": "dnd_tip", "epsilon": 0.5}).logits(features, (prepared, caches[0]))
    method.logits(features, (method.prepare(described), caches[0]))
    assert scored == ["Dnd"] * 3, "not with another setting, nor with other texts"


@pytest.mark.parametrize("name", FEW_SHOT)
def test_without_weight_a_cache_says_nothing(name, described, keys, unit):
    method = parse_method(name)
    prepared = method.prepare(described)
    features = Features(unit(4, 8, seed=3), unit(4, 5, 8, seed=4))
    base = method.base() if method.chooses_crops else ClipE()
    single = Keys(keys.vectors[:3], torch.arange(3), torch.zeros(3, dtype=torch.int64))
    found = method.logits(features, (prepared, Cache(single, 0.0, BETA)))
    torch.testing.assert_close(found, base.logits(features, prepared), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shots": [1, 1]}, "shots is .*each number of shots stands there once"),
        ({"shots": []}, "shots is .*at least 1 item"),
        ({"shots": [0]}, "shots.0 is 0: .*greater than or equal to 1"),
        ({"beta": 0}, "beta is 0: .*greater than 0"),
        ({"alpha": -1}, "alpha is -1: .*greater than or equal to 0"),
        ({"max_alpha": 0.1}, "max_alpha is 0.1: .*greater than 0.1"),
    ],
)
@pytest.mark.parametrize("name", FEW_SHOT)
def test_settings_that_mean_nothing_are_refused(name, settings, words):
    with pytest.raises(ValueError, match=f"method '{name}': {words}"):
        parse_method({"name": name, **settings})
