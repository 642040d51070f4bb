"""tune: alpha and beta of a plain double loop on validation images, keys learned from shots, no query image read."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.caches import load_keys
from stages.matching.cache import global_affinities
from stages.matching.cache_training import TrainingSettings, train_keys
from stages.stage import Run
from stages.tune import fit_variant
from storage.shards import ShardTable

from .feature_world import SCALE, D, World, stored

CLASSES = ("jay", "robin", "wren")
MARKS = {"jay": ["a crest", "a collar"], "robin": ["a red breast"], "wren": ["a cocked tail", "a barred wing"]}
TIP = {"name": "tip", "shots": [2], "seeds": [1], "max_alpha": 3.0, "max_beta": 7.0}
TIP_F = {"name": "tip_f", "shots": [2], "seeds": [1], "epochs": 6, "learning_rate": 0.05, "alpha": 3.0}
VIEWS = {"augmented": {"kind": "augmented", "crops": 3}, "random": {"crops": 4}}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def birds(world) -> World:
    """Three classes: four images each to draw from, seven to validate on, two to classify."""
    world.marks = MARKS
    for split, count in (("support", 4), ("validation", 7), ("query", 2)):
        world.add(split, **dict.fromkeys(CLASSES, count))
    return world


@pytest.fixture
def without_validation(world) -> World:
    for split, count in (("support", 4), ("query", 2)):
        world.add(split, **dict.fromkeys(CLASSES, count))
    return world


def fitted(world: World, *methods, only=(), **encoded) -> list[dict]:
    """The rows that these methods' variants get, in order; features of the splits `only`, or of all."""
    world.job(*methods, views=VIEWS)
    world.encode(*only, **encoded)
    world.choose()
    return [fit_variant(table.plan).to_pylist()[0] for table in world.plan().of("tune").tables]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def whole(world: World, key: str) -> np.ndarray:
    return unit(stored(world.table("encode_images", "whole"), key)[0])[0]


def class_texts(world: World, prompts: dict[str, list[str]]) -> np.ndarray:
    """One vector a class [C, D], the mean of its prompts."""
    return unit(np.stack([np.mean([world.text(text) for text in said], axis=0) for said in prompts.values()]))


def hits_by_hand(base, near, owners, weights, labels, max_alpha, max_beta) -> tuple[np.ndarray, np.ndarray]:
    """How often the label surely wins and may win, [200, 20] each: a loop over beta, alpha and images (section 9)."""
    surely, maybe = np.zeros((200, 20), int), np.zeros((200, 20), int)
    for i in range(200):
        beta = 0.1 + i * (max_beta - 0.1) / 200
        votes = np.exp(-beta * (1 - near)) * weights @ np.eye(len(base[0]))[owners]
        for j in range(20):
            logits = base + (0.1 + j * (max_alpha - 0.1) / 20) * votes
            own = logits[np.arange(len(labels)), labels]
            others = np.where(np.eye(len(base[0]), dtype=bool)[labels], -np.inf, logits).max(axis=1)
            surely[i, j], maybe[i, j] = (own > others + 1e-4).sum(), (own > others - 1e-4).sum()
    return surely, maybe


def check_search(row: dict, surely: np.ndarray, maybe: np.ndarray, max_alpha: float, max_beta: float) -> None:
    """The row's counts are between these, and its pair is the first of the best, beta by beta."""
    hits = np.array(row["hits"]).reshape(200, 20)
    assert ((surely <= hits) & (hits <= maybe)).all()
    assert hits.min() < hits.max(), "the search has something to find"
    beta, alpha = divmod(int(hits.argmax()), 20)
    assert row["beta"] == pytest.approx(0.1 + beta * (max_beta - 0.1) / 200)
    assert row["alpha"] == pytest.approx(0.1 + alpha * (max_alpha - 0.1) / 20)
    assert row["accuracy"] == hits.max() / row["images"]


def test_alpha_and_beta_of_tip_are_those_of_a_double_loop_over_validation_images(birds):
    (row,) = fitted(birds, TIP)
    fit = birds.table("tune").plan
    assert (row["images"], row["shots"], row["epochs"], row["keys"]) == (21, 6, [], [])
    keys, labels = (
        fit.validation["key"].to_pylist(),
        [CLASSES.index(name) for name in fit.validation["class"].to_pylist()],
    )
    seen = np.stack([whole(birds, key) for key in keys])
    cached = load_keys(fit.reading)
    base = SCALE * seen @ class_texts(birds, fit.reading.prompts).T
    near = seen @ cached.vectors.double().numpy().T
    counted = hits_by_hand(base, near, cached.owners.numpy(), np.ones(6), labels, 3.0, 7.0)
    check_search(row, *counted, 3.0, 7.0)


def test_alpha_and_beta_of_dnd_tip_are_those_of_a_double_loop_with_votes_a_description(birds):
    method = {"name": "dnd_tip", "shots": [2], "seeds": [1], "query": "aligned", "epsilon": 1000.0}
    (row,) = fitted(birds, method)
    fit = birds.table("tune").plan
    keys, labels = (
        fit.validation["key"].to_pylist(),
        [CLASSES.index(name) for name in fit.validation["class"].to_pylist()],
    )
    view, cached = birds.table("encode_images", "views.random"), load_keys(fit.reading)
    crops = np.stack([unit(stored(view, key)[0]) for key in keys])
    texts = {name: np.stack([birds.text(text) for text in said]) for name, said in fit.reading.prompts.items()}
    # With so much entropy every crop is moved to every description in equal parts.
    base = SCALE * np.stack([(crops @ said.T).mean(axis=(1, 2)) for said in texts.values()], axis=1)
    owners, numbers = cached.owners.tolist(), cached.descriptors.tolist()
    near = np.empty((len(keys), len(owners)))
    for image, own in enumerate(crops):
        for entry, (owner, number) in enumerate(zip(owners, numbers, strict=True)):
            asked = own[(own @ texts[CLASSES[owner]][number]).argmax()]
            near[image, entry] = asked @ cached.vectors[entry].double().numpy()
    weights = np.array([1 / len(MARKS[CLASSES[owner]]) for owner in owners])
    assert row["shots"] == 6
    assert len(owners) == 2 * 2 + 2 * 1 + 2 * 2
    check_search(row, *hits_by_hand(base, near, owners, weights, labels, 10.0, 20.0), 10.0, 20.0)


def test_without_validation_images_alpha_and_beta_are_the_methods_own(without_validation):
    (row,) = fitted(without_validation, TIP | {"alpha": 1.25, "beta": 3.5})
    assert (row["alpha"], row["beta"], row["accuracy"], row["hits"], row["images"]) == (1.25, 3.5, None, None, 0)


def test_a_method_that_is_told_not_to_search_does_not(birds):
    (row,) = fitted(birds, TIP | {"search": False, "alpha": 1.25, "beta": 3.5})
    assert (row["alpha"], row["beta"], row["accuracy"], row["hits"], row["images"]) == (1.25, 3.5, None, None, 0)


def test_query_images_are_never_read(birds):
    methods = [TIP, TIP_F, {"name": "dnd_tip_f", "shots": [1], "seeds": [2], "epochs": 2}]
    rows = fitted(birds, *methods, only=("support", "validation"))
    assert all(row["accuracy"] is not None for row in rows)
    birds.encode("query")
    assert [fit_variant(table.plan).to_pylist()[0] for table in birds.plan().of("tune").tables] == rows


def test_a_new_query_image_leaves_the_tables_of_tune_and_a_validation_or_support_image_does_not(birds):
    fitted(birds, TIP)
    seen = [birds.table("tune").fingerprint]
    birds.add("query", jay=3, _=2)
    assert birds.table("tune").fingerprint == seen[0]
    for split in ("validation", "support"):
        birds.add(split, jay=8)
        birds.encode()
        seen.append(birds.table("tune").fingerprint)
    assert len(set(seen)) == 3


def test_a_new_query_image_is_scored_with_the_cache_that_is_there_and_another_cache_scores_all_anew(birds):
    fitted(birds, TIP)
    scored = birds.table("score")
    birds.add("query", jay=3)
    more = birds.table("score")
    assert (more.fingerprint, len(more.wanted)) == (scored.fingerprint, len(scored.wanted) + 1)
    birds.add("validation", jay=8)
    assert birds.table("score").fingerprint != scored.fingerprint


@pytest.mark.parametrize("method", [TIP_F, {"name": "dnd_tip_f", "shots": [2], "seeds": [1], "epochs": 2}], ids=str)
def test_how_many_images_are_read_at_a_time_does_not_matter(birds, method, monkeypatch):
    (at_once,) = fitted(birds, method)
    monkeypatch.setattr("stages.fitting.IMAGES_AT_ONCE", 4)
    monkeypatch.setattr("stages.caches.IMAGES_AT_ONCE", 4)
    (in_parts,) = fitted(birds, method)
    np.testing.assert_allclose(np.array(in_parts["keys"]), np.array(at_once["keys"]), atol=1e-4)
    assert (in_parts["epochs"], in_parts["accuracy"]) == (at_once["epochs"], at_once["accuracy"])


def test_a_search_by_default_is_the_table_of_one_that_was_asked_for(birds):
    fitted(birds, TIP)
    before = birds.table("tune").fingerprint
    fitted(birds, TIP | {"search": True})
    assert birds.table("tune").fingerprint == before
    fitted(birds, TIP | {"search": False})
    assert birds.table("tune").fingerprint != before


def accuracy_by_hand(world: World, vectors: np.ndarray, alpha: float, beta: float) -> float:
    """Of these keys of `tip_f` on the validation images."""
    fit = world.table("tune").plan
    labels = np.array([CLASSES.index(name) for name in fit.validation["class"].to_pylist()])
    seen = np.stack([whole(world, key) for key in fit.validation["key"].to_pylist()])
    votes = np.exp(-beta * (1 - seen @ vectors.T)) @ np.eye(len(CLASSES))[load_keys(fit.reading).owners.numpy()]
    logits = SCALE * seen @ class_texts(world, fit.reading.prompts).T + alpha * votes
    return float((logits.argmax(axis=1) == labels).mean())


def test_of_learned_keys_the_best_epoch_on_validation_images_is_kept_and_then_searched(birds):
    (row,) = fitted(birds, TIP_F | {"epochs": 8, "learning_rate": 0.3})
    assert len(row["epochs"]) == 8
    assert row["epochs"][-1] < max(row["epochs"]), "the last epoch is not the best, so that it matters which is kept"
    learned = np.array(row["keys"], np.float64).reshape(6, D)
    assert accuracy_by_hand(birds, learned, 3.0, 5.5) == max(row["epochs"])
    assert accuracy_by_hand(birds, learned, row["alpha"], row["beta"]) == row["accuracy"] >= max(row["epochs"])
    assert not np.allclose(np.linalg.norm(learned, axis=1), 1.0, atol=1e-3), "learned keys are not rescaled"


def test_without_validation_images_the_last_epoch_is_kept_trained_on_all_versions_of_the_shots(without_validation):
    world = without_validation
    (row,) = fitted(world, TIP_F | {"beta": 3.0})
    assert (row["epochs"], row["alpha"], row["beta"]) == ([], 3.0, 3.0)
    reading = world.table("tune").plan.reading
    view, start = world.table("encode_images", "views.augmented"), load_keys(reading)
    versions = np.stack([unit(stored(view, key)[0]) for key in reading.support.shots["key"].to_pylist()], axis=1)
    base = SCALE * versions @ class_texts(world, reading.prompts).T
    assert versions.shape == (3, 6, D)
    wanted = train_keys(
        start.vectors,
        lambda seen, keys: global_affinities(seen, replace(start, vectors=keys), torch.ones(3, 1, dtype=torch.bool)),
        torch.tensor(versions, dtype=torch.float32),
        torch.tensor(base, dtype=torch.float32),
        start.owners,
        alpha=3.0,
        beta=3.0,
        settings=TrainingSettings(epochs=6, learning_rate=0.05, seed=1),
    )
    found = torch.tensor(row["keys"])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (found - start.vectors).abs().max() > 0.01


def test_the_same_seed_gives_the_same_row_and_another_one_another(birds):
    first, second = fitted(birds, TIP_F | {"seeds": [1, 2]})
    again, _ = fitted(birds, TIP_F | {"seeds": [1, 2]})
    assert first == again
    assert first["keys"] != second["keys"]


def test_keys_of_chosen_crops_are_learned_too(birds):
    (row,) = fitted(birds, {"name": "dnd_tip_f", "shots": [2], "seeds": [1], "epochs": 3})
    assert len(row["epochs"]) == 3
    start, learned = load_keys(birds.table("tune").plan.reading).vectors, torch.tensor(row["keys"])
    assert learned.shape == start.shape == (10, D)
    assert 1e-4 < (learned - start).abs().max() < 0.1


def test_a_search_that_was_asked_for_without_a_labelled_validation_image_is_refused(without_validation):
    without_validation.add("validation", _=3)
    with pytest.raises(ValueError, match=r"methods\.tip\.search: the data set has no labelled image in its validation"):
        without_validation.job(TIP | {"search": True}, views=VIEWS)
    (row,) = fitted(without_validation, TIP)
    assert (row["alpha"], row["images"]) == (1.0, 0)


def test_a_support_split_without_a_labelled_image_is_refused(world):
    world.add("query", jay=2)
    world.add("support", _=3)
    with pytest.raises(ValueError, match=r"methods\.tip: the data set has no labelled image in its support split"):
        world.job(TIP, views=VIEWS)


def test_an_image_that_cannot_be_read_is_left_out_of_shots_and_of_validation(birds):
    birds.job(TIP | {"shots": [4]}, views=VIEWS)
    birds.encode(reject="train/jay/2.png")
    fit = birds.table("tune").plan
    kept = [key.split("@")[0] for key in fit.reading.support.shots["key"].to_pylist()]
    assert sorted(kept) == sorted(
        f"train/{name}/{number}.png" for name in CLASSES for number in range(4) if (name, number) != ("jay", 2)
    )
    assert fit_variant(fit)["shots"].to_pylist() == [11]


def test_a_support_split_of_which_nothing_can_be_read_is_refused_before_anything_starts(world):
    for split in ("support", "query"):
        world.add(split, jay=1)
    for method in (TIP, {"name": "dnd_tip", "shots": [1], "seeds": [1]}):
        world.marks = MARKS
        world.job(method, views=VIEWS)
        world.encode(reject="train/jay/0.png")
        world.choose()
        plan = world.plan()
        run = Run("run", lambda done, rejected: None, lambda: pytest.fail("Ray was started"))
        with pytest.raises(
            ValueError, match=rf"tuned\.{method['name']}\..*: none of the labelled images of the support"
        ):
            plan.of("tune").stage.compute(plan.of("tune").tables, plan.inputs, run)


def test_a_validation_image_that_cannot_be_read_is_not_counted(birds):
    birds.job(TIP, views=VIEWS)
    birds.encode(reject="val/wren/0.png")
    (row,) = [fit_variant(table.plan).to_pylist()[0] for table in birds.plan().of("tune").tables]
    assert row["images"] == 20


def test_a_row_has_its_own_columns_and_can_be_appended(birds, tmp_path):
    for name, method in (("tip", TIP), ("tip_f", TIP_F)):
        birds.job(method, views=VIEWS)
        birds.encode()
        table = ShardTable(str(tmp_path / name))
        table.append(fit_variant(birds.table("tune").plan), "run")
        assert table.columns() == ["key", "alpha", "beta", "accuracy", "hits", "images", "shots", "epochs", "keys"]
        assert math.isfinite(table.read(keys=["all"])["beta"][0].as_py())
