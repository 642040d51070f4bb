from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from stages.matching.cache import Keys, aligned_affinities, global_affinities
from stages.matching.cache_training import TrainingSettings, train_keys

ALPHA, BETA = 1.7, 3.0
SHORT = TrainingSettings(epochs=3, batch=8, micro_batch=3, seed=5)


@pytest.fixture
def task(unit_rows):
    """Twenty images of 4 classes in two versions of 3 crops, and a cache of two descriptors a class (one has three)."""
    draw = torch.Generator().manual_seed(0)
    texts, mask = unit_rows(4, 3, 8, dtype=torch.float32), torch.ones(4, 3, dtype=torch.bool)
    mask[1:, 2] = False
    owners, descriptors = mask.nonzero().T
    keys = Keys(unit_rows(len(owners), 8, seed=1, dtype=torch.float32), owners, descriptors)
    crops = unit_rows(2, 20, 3, 8, seed=2, dtype=torch.float32)
    base = torch.randn(2, 20, 4, generator=draw)
    return keys, texts, mask, crops, base, torch.randint(4, (20,), generator=draw)


def whole(keys, mask):
    return lambda queries, vectors: global_affinities(queries, replace(keys, vectors=vectors), mask)


def aligned(keys, texts, mask):
    return lambda queries, vectors: aligned_affinities(queries, replace(keys, vectors=vectors), texts, mask)


def plainly(keys, affinity, queries, base, labels, s):
    """The formula on all of a batch, autograd through it, and AdamW and the cosine written out."""
    vectors = keys.vectors.double().requires_grad_()
    first, second, step = torch.zeros_like(vectors), torch.zeros_like(vectors), 0
    steps = s.epochs * math.ceil(len(labels) / s.batch)
    draw = torch.Generator().manual_seed(s.seed)
    one_hot = F.one_hot(keys.owners, base.shape[-1]).double()
    for epoch in range(s.epochs):
        for rows in torch.randperm(len(labels), generator=draw).split(s.batch):
            version = epoch % len(base)
            values, weights = affinity(queries[version, rows].double(), vectors)
            logits = base[version, rows].double() + ALPHA * ((-BETA * (1 - values)).exp() * weights) @ one_hot
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels[rows]), vectors)
            rate = s.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            root = (second / (1 - 0.999**step)).sqrt() + s.epsilon
            vectors = vectors * (1 - rate * s.weight_decay) - rate * first / (1 - 0.9**step) / root
            vectors = vectors.detach().requires_grad_()
    return vectors.detach()


def test_keys_for_whole_images_are_those_of_the_plain_formula(task):
    keys, _, mask, crops, base, labels = task
    features, weights = crops[:, :, 0], 1 / mask.sum(dim=1)[keys.owners].double()
    found = train_keys(keys.vectors, whole(keys, mask), features, base, labels, alpha=ALPHA, beta=BETA, settings=SHORT)
    wanted = plainly(keys, lambda x, k: (x @ k.T, weights), features, base, labels, SHORT)
    torch.testing.assert_close(found.double(), wanted, atol=2e-6, rtol=1e-5)
    assert (found - keys.vectors).abs().max() > 1e-3


@pytest.mark.parametrize("micro_batch", [1, 3, 64])
def test_keys_for_chosen_crops_are_those_of_the_plain_formula(task, micro_batch):
    keys, texts, mask, crops, base, labels = task
    weights = 1 / mask.sum(dim=1)[keys.owners].double()
    asked = texts[keys.owners, keys.descriptors].double()

    def chosen(x, k):
        nearest = (x @ asked.T).argmax(dim=1)
        return torch.einsum("bsd,sd->bs", x[torch.arange(len(x)).unsqueeze(1), nearest], k), weights

    s = replace(SHORT, micro_batch=micro_batch)
    ask = aligned(keys, texts, mask)
    found = train_keys(keys.vectors, ask, crops, base, labels, alpha=ALPHA, beta=BETA, settings=s)
    torch.testing.assert_close(found.double(), plainly(keys, chosen, crops, base, labels, s), atol=2e-6, rtol=1e-5)


def trained(task, **changes):
    keys, _, mask, crops, base, labels = task
    given = {"alpha": ALPHA, "beta": BETA, "settings": SHORT} | changes
    return train_keys(keys.vectors, whole(keys, mask), crops[:, :, 0], base, labels, **given)


def test_the_seed_alone_decides_the_order_and_nothing_else_is_drawn(task):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    once = trained(task)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(trained(task), once)
    assert not torch.equal(trained(task, settings=replace(SHORT, seed=6)), once)


def test_training_works_where_gradients_are_off_and_leaves_its_start_as_it_was(task):
    start = task[0].vectors.clone()
    with torch.no_grad():
        found = trained(task)
    assert torch.equal(task[0].vectors, start)
    assert torch.equal(found, trained(task))
    assert not found.requires_grad


def test_the_first_of_the_best_epochs_is_kept_and_without_validation_the_last(task):
    seen, scores = [], iter([0.2, 0.9, 0.9])

    def validate(keys):
        seen.append(keys.clone())
        return next(scores)

    found = trained(task, after_epoch=validate)
    assert len(seen) == 3
    assert torch.equal(found, seen[1])
    assert torch.equal(trained(task), seen[2])


def test_training_makes_the_loss_smaller(task):
    keys, _, mask, crops, base, labels = task

    def loss(vectors):
        values = crops[0, :, 0] @ vectors.T
        votes = ((-BETA * (1 - values)).exp() / mask.sum(dim=1)[keys.owners]) @ F.one_hot(keys.owners, 4).float()
        return float(F.cross_entropy(base[0] + ALPHA * votes, labels))

    longer = replace(SHORT, epochs=20, learning_rate=1e-2)
    found = train_keys(
        keys.vectors, whole(keys, mask), crops[:1, :, 0], base[:1], labels, alpha=ALPHA, beta=BETA, settings=longer
    )
    assert loss(found) < loss(keys.vectors) - 0.05


def test_what_cannot_be_trained_is_refused(task):
    keys, _, mask, crops, base, labels = task
    with pytest.raises(ValueError, match="one image at least"):
        train_keys(
            keys.vectors, whole(keys, mask), crops[0], base[0], labels, alpha=1.0, beta=1.0, settings=TrainingSettings()
        )
    with pytest.raises(ValueError, match="0 epochs"):
        trained(task, settings=replace(SHORT, epochs=0))
    with pytest.raises(ValueError, match="not finite after epoch 1"):
        trained(task, settings=replace(SHORT, learning_rate=1e30))
