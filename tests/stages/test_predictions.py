"""Predictions: texts and features as the methods want them, and rows of the best classes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.encode_text import text_key
from stages.methods import ZERO_SHOT, Features, Texts, parse_method
from stages.predictions import first_image, load_features, load_texts, predict_rows, prepare_methods
from stages.readings import Reading
from stages.settings import ScoreSettings
from storage.schemas import fixed_list
from storage.shards import ShardTable

D = 8


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def reading(method="clip", prompts=None, **keys) -> Reading:
    defaults = {"texts": "", "whole": "whole", "view": None, "classes": tuple(prompts or {})}
    return Reading(parse_method(method), prompts or {}, **defaults | keys)


def predicted(method, features=None, texts=None, prompts=None, **keys) -> list[dict]:
    """The rows of a method on six images and four classes; `keys` are settings of score, or of the reading."""
    settings = {name: keys.pop(name) for name in ("top_k", "full_logits") if name in keys}
    read = reading(method, prompts or PROMPTS, **keys)
    prepared = read.method.prepare(texts or TEXTS)
    return predict_rows(
        read, KEYS, features or FEATURES, prepared, ScoreSettings.model_construct(**settings)
    ).to_pylist()


@pytest.fixture
def texts_folder(tmp_path):
    """`texts_folder([text, ...])` -> a table of encoded texts, text number n being unit(.)[n], logit scale 50."""

    def write(texts: list[str]) -> str:
        table = ShardTable(str(tmp_path / "texts"))
        vectors = unit(len(texts), D).numpy()
        for number, text in enumerate(texts):  # a shard each, so that order on disk is not that of the list
            row = {
                "key": [text_key(text)],
                "text": [text],
                "vector": fixed_list(vectors[number : number + 1]),
                "logit_scale": pa.array([50.0], pa.float32()),
            }
            table.append(pa.table(row), "run")
        return table.folder

    return write


def test_texts_are_padded_to_the_longest_class_with_zeros_under_the_mask(texts_folder):
    folder = texts_folder(["a", "b", "c", "d"])
    vectors = unit(4, D)
    texts = load_texts({"jay": ["c"], "wren": ["a", "b", "d"], "owl": ["b", "a"]}, folder)
    assert texts.mask.tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    assert texts.logit_scale == 50.0
    expected = torch.zeros(3, 3, D)
    for place, number in {(0, 0): 2, (1, 0): 0, (1, 1): 1, (1, 2): 3, (2, 0): 1, (2, 1): 0}.items():
        expected[place] = vectors[number]
    torch.testing.assert_close(texts.vectors, expected)


def test_a_text_that_a_class_says_twice_counts_twice(texts_folder):
    texts = load_texts({"jay": ["a", "b", "a"]}, texts_folder(["a", "b"]))
    torch.testing.assert_close(texts.vectors[0], unit(2, D)[[0, 1, 0]])


def stored(tmp_path, name: str, **vectors: np.ndarray) -> ShardTable:
    """A table of fp16 vectors [B, N, d] under keys k0, k1, ..."""
    table = ShardTable(str(tmp_path / name))
    count = len(next(iter(vectors.values())))
    columns = {"key": pa.array([f"k{number}" for number in range(count)])}
    for prefix, values in vectors.items():
        columns[f"{prefix}vectors"] = fixed_list(values.astype(np.float16))
        columns[f"{prefix}norms"] = fixed_list(np.ones(values.shape[:2], np.float32))
    table.append(pa.table(columns), "run")
    return table


@pytest.fixture
def tables(tmp_path):
    whole = stored(tmp_path, "whole", **{"": unit(4, 1, D, seed=1).numpy()})
    crops, windows = unit(4, 5, D, seed=2).numpy(), unit(4, 5, D, seed=3).numpy()
    return {"whole": whole, "view": stored(tmp_path, "view", **{"": crops, "feature_": windows})}


def test_features_come_in_the_order_of_the_keys_as_unit_rows_in_full_precision(tables):
    features = load_features([reading("abs", view="view")], ["k2", "k0"], tables)
    for found, seed, count in ((features.whole[:, None], 1, 1), (features.raw, 2, 5), (features.crops, 3, 5)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, count), atol=1e-6, rtol=0)
        torch.testing.assert_close(found, unit(4, count, D, seed=seed)[[2, 0]], atol=1e-3, rtol=0)


def test_only_what_a_method_reads_is_loaded(tables):
    assert load_features([reading("clip")], ["k1"], tables).raw is None
    assert load_features([reading("dnd", view="view")], ["k1"], tables).crops is None
    assert load_features([reading({"name": "abs", "crops": "raw"}, view="view")], ["k1"], tables).crops is None
    feature = reading({"name": "abs", "crops": "feature"}, view="view")
    assert load_features([feature], ["k1"], tables).raw is None
    both = load_features([feature, reading("dnd", view="view")], ["k1"], tables)
    assert both.raw.shape == both.crops.shape == (1, 5, D)


def test_a_view_set_without_feature_crops_gives_none(tables, tmp_path):
    plain = stored(tmp_path, "plain", **{"": unit(4, 5, D).numpy()})
    features = load_features([reading("abs", view="view")], ["k1"], tables | {"view": plain})
    assert features.crops is None
    assert features.raw.shape == (1, 5, D)


FEATURES = Features(unit(6, D, seed=4), unit(6, 5, D, seed=5), unit(6, 5, D, seed=6))
PROMPTS = {f"class {letter}": [f"{letter} {n}" for n in range(3)] for letter in "abcd"}
TEXTS = Texts(unit(4, 3, D, seed=7), torch.ones(4, 3, dtype=torch.bool), 50.0)
KEYS = [f"k{number}" for number in range(6)]


@pytest.mark.parametrize("name", list(ZERO_SHOT))
def test_rows_hold_every_methods_classes_best_first_with_probabilities_that_sum_to_one(name):
    rows = predicted(name)
    method = parse_method(name)
    logits = method.logits(FEATURES, method.prepare(TEXTS))
    for number, row in enumerate(rows):
        order = sorted(range(4), key=lambda c: -logits[number, c].item())
        assert row["key"] == KEYS[number]
        assert row["classes"] == [list(PROMPTS)[c] for c in order]
        assert row["logits"] == pytest.approx(logits[number, order].tolist(), rel=1e-5)
        exponents = np.exp(np.array(row["logits"]) * method.probability_scale(FEATURES))
        assert row["probabilities"] == pytest.approx((exponents / exponents.sum()).tolist(), abs=1e-5)
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["margin"] == pytest.approx(row["logits"][0] - row["logits"][1], abs=1e-4)
        shares = np.array(row["probabilities"])
        assert row["entropy"] == pytest.approx(-(shares * np.log(np.maximum(shares, 1e-30))).sum(), abs=1e-4)
        assert row["seconds"] > 0


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_keeping_fewer_classes_cuts_the_rows_and_changes_nothing_else(top_k):
    for cut, whole in zip(predicted("dnd", top_k=top_k), predicted("dnd"), strict=True):
        for name in ("classes", "logits", "probabilities"):
            assert cut[name] == whole[name][:top_k]
        assert (cut["margin"], cut["entropy"]) == (whole["margin"], whole["entropy"])


def test_equal_classes_come_in_the_order_of_the_job_and_share_their_probability():
    same = Texts(TEXTS.vectors[:1].expand(4, 3, D), TEXTS.mask, 50.0)
    for row in predicted("cupl", texts=same):
        assert row["classes"] == list(PROMPTS)
        assert row["probabilities"] == pytest.approx([0.25] * 4)
        assert row["margin"] == 0


def test_a_single_class_is_certain():
    one = Texts(TEXTS.vectors[:1], TEXTS.mask[:1], 50.0)
    for row in predicted("cupl", texts=one, prompts={"jay": ["x", "y", "z"]}):
        assert (row["classes"], row["probabilities"], row["margin"], row["entropy"]) == (["jay"], [1.0], 0.0, 0.0)


@pytest.mark.parametrize("name", list(ZERO_SHOT))
def test_classes_that_may_not_be_predicted_are_scored_and_drop_out_afterwards(name):
    whole, part = predicted(name), predicted(name, classes=("class a", "class d"))
    for full, cut in zip(whole, part, strict=True):
        places = [full["classes"].index(name) for name in cut["classes"]]
        assert set(cut["classes"]) == {"class a", "class d"}
        assert places == sorted(places)
        assert cut["logits"] == [full["logits"][place] for place in places]  # the others counted in what normalises
        assert sum(cut["probabilities"]) == pytest.approx(1, abs=1e-6)


def test_all_logits_are_kept_on_request_in_the_order_of_the_classes():
    for row in predicted("dnd", full_logits=True, classes=("class b", "class c")):
        assert len(row["all_logits"]) == 4
        kept = dict(zip(PROMPTS, row["all_logits"], strict=True))
        assert [kept[name] for name in row["classes"]] == row["logits"]
    assert "all_logits" not in predicted("dnd")[0]


def test_texts_that_several_methods_read_are_loaded_once(texts_folder, monkeypatch):
    import stages.predictions as predictions

    folder, same, loaded = texts_folder(["a", "b"]), {"jay": ["a"], "wren": ["b"]}, []
    real = predictions.load_texts
    monkeypatch.setattr(predictions, "load_texts", lambda *read: loaded.append(read) or real(*read))
    readings = {
        "abs": reading("abs", same, texts=folder),
        "dnd": reading("dnd", same, texts=folder),
        "clip": reading("clip", {"jay": ["b"], "wren": ["a"]}, texts=folder),
    }
    prepared = prepare_methods(readings)
    assert len(loaded) == 2
    assert prepared["abs"].vectors.data_ptr() == prepared["dnd"].vectors.data_ptr()
    texts = unit(2, D)
    features = Features(texts[:1])
    assert readings["clip"].method.logits(features, prepared["clip"]).argmax() == 1


def test_the_first_image_alone_is_scored_as_it_is_among_others():
    for name in ZERO_SHOT:
        method = parse_method(name)
        alone = method.logits(first_image(FEATURES), method.prepare(TEXTS))
        torch.testing.assert_close(alone, method.logits(FEATURES, method.prepare(TEXTS))[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(ZERO_SHOT))
def test_classes_that_read_the_same_tie_exactly_and_the_first_one_wins(name):
    same = torch.cat([unit(1, 3, D, seed=8).expand(9, 3, D), unit(31, 3, D, seed=9)])
    prompts = {f"jay ({number})": ["a jay"] for number in range(9)} | {f"{n}": [f"{n}"] for n in range(31)}
    for row in predicted(name, texts=Texts(same, torch.ones(40, 3, dtype=torch.bool), 50.0), prompts=prompts):
        jays = [place for place, found in enumerate(row["classes"]) if found.startswith("jay")]
        assert [row["classes"][place] for place in jays] == list(prompts)[:9]
        assert len({row["logits"][place] for place in jays}) == 1
