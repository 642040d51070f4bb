"""The cache of a few-shot variant: its keys from stored features, and predictions with what `tune` chose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.caches import load_cache, load_keys
from stages.predictions import load_features, predict_rows, prepare_methods
from stages.settings import ScoreSettings
from stages.shots import draw_shots
from stages.tune import fit_variant
from storage.shards import ShardTable

from .feature_world import SCALE, D, World, stored

CLASSES = ("jay", "robin", "wren")
MARKS = {
    "jay": ["a crest", "a collar", "a tail"],
    "robin": ["a red breast"],
    "wren": ["a cocked tail", "a barred wing"],
}
VIEWS = {"augmented": {"kind": "augmented", "crops": 3}, "random": {"crops": 2}}
ONE = {"shots": [2], "seeds": [1], "search": False}


@pytest.fixture
def birds(world) -> World:
    world.marks = MARKS
    for split, count in (("support", 4), ("query", 3)):
        world.add(split, **dict.fromkeys(CLASSES, count))
    return world


def job(world: World, *methods) -> None:
    world.job(*methods, views=VIEWS)
    world.encode()
    world.choose()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def reading_of(world: World, name: str = ""):
    return world.table("tune", name).plan.reading


def test_a_key_of_tip_is_the_mean_of_its_versions_with_their_lengths_made_a_unit_row(birds):
    job(birds, {"name": "tip", **ONE})
    keys, view = load_keys(reading_of(birds)), birds.table("encode_images", "views.augmented")
    shots = draw_shots(birds.plan().inputs.manifest, 2, 1).to_pylist()
    assert keys.owners.tolist() == [CLASSES.index(row["class"]) for row in shots] == [0, 0, 1, 1, 2, 2]
    for row, key in zip(shots, keys.vectors, strict=True):
        vectors, norms = stored(view, row["key"])
        mean = sum(norm * vector for norm, vector in zip(norms, vectors, strict=True)) / 3
        torch.testing.assert_close(key.double(), torch.tensor(mean / np.linalg.norm(mean)), atol=1e-6, rtol=0)
        assert np.abs(unit(vectors.mean(axis=0)) - mean / np.linalg.norm(mean)).max() > 0.01, "lengths matter"


def test_without_augmented_versions_a_key_is_the_whole_image(birds):
    job(birds, {"name": "tip", **ONE, "augmented": False})
    reading, whole = reading_of(birds), birds.table("encode_images", "whole")
    wanted = np.stack([unit(stored(whole, key)[0])[0] for key in reading.support.shots["key"].to_pylist()])
    torch.testing.assert_close(load_keys(reading).vectors.double(), torch.tensor(wanted), atol=1e-6, rtol=0)


def test_keys_of_chosen_crops_stand_by_shot_and_description(birds):
    job(birds, {"name": "dnd_tip", **ONE})
    reading, view = reading_of(birds), birds.table("encode_images", "views.random")
    keys, expected = load_keys(reading), []
    for row in reading.support.shots.to_pylist():
        crops = unit(stored(view, row["key"])[0])
        for number, text in enumerate(MARKS[row["class"]]):
            expected.append((CLASSES.index(row["class"]), number, crops[(crops @ birds.text(text)).argmax()]))
    assert len(expected) == 2 * (3 + 1 + 2)
    assert keys.owners.tolist() == [owner for owner, _, _ in expected]
    assert keys.descriptors.tolist() == [number for _, number, _ in expected]
    wanted = torch.tensor(np.stack([vector for _, _, vector in expected]))
    torch.testing.assert_close(keys.vectors.double(), wanted, atol=1e-6, rtol=0)


def test_without_duplicates_a_crop_of_a_shot_is_kept_once_for_the_first_description_that_chose_it(birds):
    job(birds, {"name": "dnd_tip", **ONE}, {"name": "dnd_tip", **ONE, "label": "once", "dedupe": True})
    whole, once = (load_keys(reading_of(birds, f"tuned.{name}.shots.2.draw.1")) for name in ("dnd_tip", "once"))
    rows = [tuple(row) for row in torch.cat([whole.owners.unsqueeze(1).float(), whole.vectors], dim=1).tolist()]
    first = sorted(rows.index(row) for row in dict.fromkeys(rows))
    assert len(first) < len(rows), "two crops and three descriptions: some crop was chosen twice"
    torch.testing.assert_close(once.vectors, whole.vectors[first], atol=0, rtol=0)
    assert once.owners.tolist() == whole.owners[first].tolist()
    assert once.descriptors.tolist() == whole.descriptors[first].tolist()


@pytest.mark.parametrize("name", ["tip", "tip_f"])
def test_predictions_are_made_with_the_alpha_the_beta_and_the_keys_that_tune_stored(birds, name):
    birds.add("validation", **dict.fromkeys(CLASSES, 4))
    trained = {"epochs": 3, "learning_rate": 0.1} if name == "tip_f" else {}
    job(birds, {"name": name, **ONE, "search": True, **trained})
    (table,) = birds.plan().of("tune").tables
    table.keeper.append(fit_variant(table.plan), "run")
    row = table.keeper.read().to_pylist()[0]
    reading, seed = birds.table("score").plan
    assert seed == 0
    assert reading.support == table.plan.reading.support
    vectors = load_keys(reading).vectors.double().numpy()
    if name == "tip_f":
        start, vectors = vectors, np.array(row["keys"], np.float64).reshape(6, D)
        assert np.abs(start - vectors).max() > 0.01
    cache = load_cache(reading)
    assert (cache.alpha, cache.beta) == (row["alpha"], row["beta"]) != (1.0, 5.5)

    keys = birds.table("score").wanted.to_pylist()
    assert len(keys) == 9
    whole = birds.table("encode_images", "whole")
    seen = np.stack([unit(stored(whole, key)[0])[0] for key in keys])
    texts = np.stack([np.mean([birds.text(text) for text in said], axis=0) for said in reading.prompts.values()])
    votes = np.exp(-row["beta"] * (1 - seen @ vectors.T)) @ np.eye(3)[cache.keys.owners.numpy()]
    logits = SCALE * seen @ unit(texts).T + row["alpha"] * votes
    features = load_features([reading], keys, {reading.whole: ShardTable(reading.whole)})
    prepared = prepare_methods({"one": reading})["one"]
    rows = predict_rows(reading, keys, features, prepared, ScoreSettings(full_logits=True)).to_pylist()
    np.testing.assert_allclose([row["all_logits"] for row in rows], logits, atol=1e-4)
    assert [row["classes"][0] for row in rows] == [CLASSES[best] for best in logits.argmax(axis=1)]


def test_variants_of_a_method_hold_the_same_texts_and_caches_of_their_own(birds):
    job(birds, {"name": "tip", "shots": [1, 2], "seeds": [1, 2], "search": False}, {"name": "clip"})
    for table in birds.plan().of("tune").tables:
        table.keeper.append(fit_variant(table.plan), "run")
    readings = {table.name: table.plan[0] for table in birds.plan().of("score").tables}
    assert len(readings) == 5
    prepared = prepare_methods(readings)
    few = [prepared[name] for name in readings if name != "methods.clip"]
    assert len({id(texts) for texts, _ in few}) == 1
    assert [len(cache.keys.owners) for _, cache in few] == [3, 3, 6, 6]


def test_classes_that_read_the_same_texts_tie_without_a_cache_and_do_not_with_one(world):
    for split, count in (("support", 2), ("query", 1)):
        world.add(split, jay=count, wren=count)
    world.job({"name": "tip", **ONE}, "clip", views=VIEWS)
    world.encode()
    readings = {table.name: table.plan[0] for table in world.plan().of("score").tables}
    alike = {name: {**one.prompts, "wren": one.prompts["jay"]} for name, one in readings.items()}
    tied = {name: replace(one, prompts=alike[name]).tied for name, one in readings.items()}
    assert tied == {"methods.tip.shots.2.draw.1": None, "methods.clip": [0, 0]}
