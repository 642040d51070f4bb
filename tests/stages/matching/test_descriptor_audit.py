"""Descriptors judged all at once agree with judging them one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from stages.matching import descriptor_audit
from stages.matching.descriptor_audit import (
    Described,
    chance_p,
    choose_descriptors,
    classify,
    fit_descriptors,
    nearest_of_class,
)

COUNTS = [3, 1, 5, 2]


@pytest.fixture
def described(unit_rows) -> Described:
    """Eleven descriptors of four classes, one of which has a single one."""
    vectors = unit_rows(sum(COUNTS), 6, seed=1, towards=0.5).float()
    return Described(vectors, np.concatenate([[0], np.cumsum(COUNTS)]))


@pytest.fixture
def images(unit_rows):
    """37 images [n, d] with labels; none is of the last class."""
    labels = np.random.default_rng(3).integers(0, 3, 37)
    return unit_rows(37, 6, seed=2, towards=0.3).float(), labels


def blocks_of(rows: torch.Tensor, size: int = 10):
    """What gives the rows again and again, a block at a time."""
    return lambda: iter(rows.split(size))


def auc_one_by_one(cosines: np.ndarray, own: np.ndarray) -> float:
    one, other = cosines[own][:, None], cosines[~own][None]
    return float(((one > other) + 0.5 * (one == other)).mean()) if own.any() else math.nan


def predicted_one_by_one(rows: torch.Tensor, texts: list[torch.Tensor]) -> np.ndarray:
    logits = torch.stack([(rows.double() @ own.double().T).mean(dim=1) for own in texts], dim=1)
    return logits.numpy().argmax(axis=1)


def test_auc_is_the_share_of_pairs_that_a_descriptor_orders_rightly(described, images):
    rows, labels = images
    fit = fit_descriptors(blocks_of(rows), labels, described)
    cosines = (described.vectors @ rows.T).numpy()
    expected = [auc_one_by_one(own, labels == c) for own, c in zip(cosines, described.owners, strict=True)]
    assert fit.auc == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert np.isnan(fit.auc[-2:]).all(), "the last class has no image"
    assert fit.images.tolist() == np.bincount(labels, minlength=4).tolist()


def test_a_class_of_many_images_is_searched_with_the_same_result(unit_rows):
    rows, labels = unit_rows(600, 3, seed=6).float(), np.arange(600) % 3
    rows = (rows * 8).round() / 8  # so that many cosines are equal
    described = Described(torch.eye(3), np.arange(4))
    fit = fit_descriptors(blocks_of(rows, 64), labels, described)
    expected = [auc_one_by_one(rows[:, c].numpy(), labels == c) for c in range(3)]
    assert fit.auc == pytest.approx(expected, abs=1e-9)


def test_ties_count_half():
    described = Described(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 2]))
    rows = torch.tensor([[0.5, 0.0], [0.25, 0.0], [0.5, 0.0], [0.0, 0.5]])
    fit = fit_descriptors(blocks_of(rows, 3), np.array([0, 0, 1, 1]), described)
    assert fit.auc.tolist() == [0.625, 0.75]  # pairs (.5, .5), (.5, 0), (.25, .5), (.25, 0); for the other .5, .5, 1, 1


def test_removals_count_the_images_that_change_as_a_classifier_without_the_descriptor_does(described, images):
    rows, labels = images
    fit = fit_descriptors(blocks_of(rows), labels, described)
    texts = [described.vectors[a:b] for a, b in zip(described.starts[:-1], described.starts[1:], strict=True)]
    before = predicted_one_by_one(rows, texts) == labels
    assert fit.right == before.sum()
    assert fit.right == (classify(blocks_of(rows)(), described.average()) == labels).sum()
    for s, c in enumerate(described.owners):
        place = s - described.starts[c]
        fewer = torch.cat([texts[c][:place], texts[c][place + 1 :]])
        after = before if not len(fewer) else predicted_one_by_one(rows, [*texts[:c], fewer, *texts[c + 1 :]]) == labels
        assert (fit.gained[s], fit.lost[s]) == ((after & ~before).sum(), (before & ~after).sum())
    assert fit.gained.sum() > 0
    assert fit.lost.sum() > 0


def test_a_class_with_one_descriptor_cannot_lose_it_and_ties_go_to_the_lower_class():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    described = Described(vectors, np.array([0, 2, 3]))
    fit = fit_descriptors(blocks_of(torch.tensor([[1.0, 1.0], [0.0, 1.0]])), np.array([0, 1]), described)
    # Logits (.5 + .5, .5 + .5) and (.5, .5): both ties, so the lower class, which is right for the first image alone.
    # Without (1, 0) the first image has (1, 1) and the second (1, .5); without (0, 1) they have (1, 1) and (0, .5).
    assert fit.right == 1
    assert fit.gained.tolist() == [0, 1, 0]
    assert fit.lost.tolist() == [0, 0, 0]


def test_a_single_class_is_always_right():
    described = Described(torch.eye(3), np.array([0, 3]))
    fit = fit_descriptors(blocks_of(torch.eye(3)), np.zeros(3, np.int64), described)
    assert (fit.right, fit.gained.sum(), fit.lost.sum()) == (3, 0, 0)
    assert np.isnan(fit.auc).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_figures_do_not_depend_on_blocks_tasks_or_threads(described, images, monkeypatch, threads):
    rows, labels = images
    expected = fit_descriptors(blocks_of(rows, 100), labels, described)
    monkeypatch.setattr(descriptor_audit, "_TASK", 2)
    torch.set_num_threads(threads)
    fit = fit_descriptors(blocks_of(rows, 4), labels, described)
    assert fit.auc == pytest.approx(expected.auc, nan_ok=True)
    assert (fit.gained.tolist(), fit.lost.tolist()) == (expected.gained.tolist(), expected.lost.tolist())


def test_chance_is_that_of_mann_and_whitney():
    draw = np.random.default_rng(0)
    for m, n, shift in [(5, 9, 0.0), (8, 200, 0.6), (40, 30, -0.5)]:
        own, others = draw.normal(shift, 1, m), draw.normal(0, 1, n)
        found = mannwhitneyu(own, others, alternative="greater", method="asymptotic", use_continuity=False)
        p = chance_p(np.array([found.statistic / (m * n)]), np.array([m]), np.array([n]), fewest=5)
        assert p[0] == pytest.approx(found.pvalue, rel=1e-6)


def test_too_few_images_say_nothing_of_chance():
    p = chance_p(np.array([1.0, 1.0, 0.5, np.nan]), np.array([4, 5, 100, 0]), np.array([100, 100, 100, 9]), fewest=5)
    assert np.isnan(p).tolist() == [True, False, False, True]
    assert p[1] < 0.001
    assert p[2] == 0.5


def test_crops_choose_the_descriptor_of_their_class_that_they_are_most_like(described, unit_rows):
    labels = np.random.default_rng(4).integers(0, 4, 23)
    crops = unit_rows(23, 7, 6, seed=5).float()
    found = choose_descriptors(iter(crops.split(6)), labels, described, each=7, keep=2)
    counted, seen = np.zeros(11, int), np.zeros(11, int)
    best: dict[int, list[tuple[float, int, int]]] = {s: [] for s in range(11)}
    for number, c in enumerate(labels):
        start = described.starts[c]
        cosines = (crops[number] @ described.vectors[start : described.starts[c + 1]].T).numpy()
        winners = cosines.argmax(axis=1) + start
        counted += np.bincount(winners, minlength=11)
        for s in set(winners.tolist()):
            seen[s] += 1
            own = np.flatnonzero(winners == s)
            crop = own[cosines[own, s - start].argmax()]
            best[s].append((float(cosines[crop, s - start]), number, int(crop)))
    assert found.crops.tolist() == counted.tolist()
    assert found.images.tolist() == seen.tolist()
    assert found.read.tolist() == np.bincount(labels, minlength=4).tolist()
    for s, rows in best.items():
        expected = sorted(rows, key=lambda row: -row[0])[:2]
        kept = [(n, c) for n, c in zip(found.best_images[s], found.best_crops[s], strict=True) if n >= 0]
        assert kept == [(n, c) for _, n, c in expected]
        assert found.best_cosines[s, : len(kept)] == pytest.approx([cosine for cosine, _, _ in expected], abs=1e-6)


def test_a_copy_is_the_nearest_of_its_class_and_an_only_descriptor_has_none(described):
    vectors = described.vectors.clone()
    vectors[8] = vectors[5]
    nearest, cosines = nearest_of_class(Described(vectors, described.starts))
    assert (nearest[5], nearest[8]) == (8, 5)
    assert cosines[[5, 8]] == pytest.approx(1.0, abs=1e-6)
    assert nearest[3] == -1
    assert np.isnan(cosines[3])
    assert set(nearest[:3]) <= {0, 1, 2}


def test_the_mean_of_kept_descriptors_is_theirs_and_a_class_keeps_one(described):
    kept = np.ones(11, bool)
    kept[[1, 5]] = False
    found = described.average(kept)
    assert found[0] == pytest.approx(described.vectors[[0, 2]].mean(dim=0), abs=1e-6)
    assert found[2] == pytest.approx(described.vectors[[4, 6, 7, 8]].mean(dim=0), abs=1e-6)
    kept[3] = False
    with pytest.raises(ValueError, match=r"class number \[1\] would have no descriptor left"):
        described.average(kept)
