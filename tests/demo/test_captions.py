"""A caption says only what its crop shows, and a label is right, wrong or unsure for good reason."""

from __future__ import annotations

import random

import numpy as np
import torch

from demo.batches import Pool, draw_batch
from demo.captions import PHRASES, caption, choose_phrases, descriptor, draw_crop, every_sentence, phrases_of, sight
from demo.marks import PARTS, Mark
from demo.species import species_of
from demo.train import contrastive_loss, logit_scale

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_a_part_is_seen_when_enough_of_it_is_inside_and_large_enough():
    boxes = np.array(
        [
            [0.1, 0.1, 0.3, 0.3],  # inside the left half: 0.2 of a half of 64 pixels
            [0.4, 0.1, 0.6, 0.3],  # half inside
            [0.45, 0.1, 0.95, 0.3],  # a tenth inside
            [0.6, 0.1, 0.9, 0.3],  # outside
            [0.1, 0.1, 0.11, 0.11],  # inside, 1.28 x 0.64 pixels
        ]
    )
    seen, unsure, side = sight(boxes, (0.0, 0.0, 0.5, 1.0))
    assert seen.tolist() == [True, False, False, False, False]
    assert unsure.tolist() == [False, True, True, False, True]
    assert np.isclose(side[0], np.sqrt(0.4 * 64 * 0.2 * 64))
    assert side[3] == 0


def test_a_crop_lies_inside_the_picture_and_one_in_seven_or_so_is_the_picture():
    rng = random.Random(1)
    boxes = np.tile([0.2, 0.2, 0.4, 0.4], (8, 1))
    crops = np.array([draw_crop(boxes, rng) for _ in range(2000)])
    assert (crops[:, :2] >= 0).all()
    assert (crops[:, 2:] <= 1 + 1e-12).all()
    assert ((crops[:, 2:] - crops[:, :2]).prod(1) >= 0.049).all()
    assert 0.12 < (crops == WHOLE).all(1).mean() < 0.2


def test_a_caption_names_seen_marks_only_and_says_so_when_there_are_none():
    marks = species_of("validation")[0].marks
    seen = np.array([part in ("beak", "tail") for part in PARTS])
    true = {place for mark in marks if mark.part in ("beak", "tail") for place in phrases_of(mark)}
    rng = random.Random(2)
    for _ in range(50):
        said = choose_phrases(marks, seen, np.ones(8), rng)
        assert said
        assert set(said) <= true
        sentence = caption(said, rng)
        assert all(PHRASES[place] in sentence for place in said)
    nothing = choose_phrases(marks, np.zeros(8, bool), np.ones(8), rng)
    assert nothing == ()
    assert not any(part in caption(nothing, rng) for part in PARTS)


def test_a_mark_is_also_true_as_its_colour_alone():
    assert [PHRASES[place] for place in phrases_of(Mark("beak", "red", "long"))] == ["a long red beak", "a red beak"]
    assert [PHRASES[place] for place in phrases_of(Mark("wings", "orange", "plain"))] == [
        "plain orange wings",
        "orange wings",
    ]
    assert [PHRASES[place] for place in phrases_of(Mark("cheek", "orange", "round"))] == ["an orange cheek"]


def test_descriptors_are_in_words_that_the_model_was_trained_on():
    known = {word for sentence in every_sentence() for word in sentence.replace(".", " .").replace(",", " ,").split()}
    sentence = descriptor(Mark("legs", "pink", "short"))
    assert sentence == "A bird with short pink legs."
    assert set(sentence.lower().replace(".", " .").split()) <= known


def test_a_batch_relates_each_caption_to_its_own_image():
    species = list(species_of("validation")[:3])
    boxes = np.stack([np.array([[0.1 * part, 0.3, 0.1 * part + 0.1, 0.4] for part in range(8)])] * 3)
    pool = Pool(np.full((3, 256, 256, 3), 128, np.uint8), boxes, species)
    batch = draw_batch(pool, 12, "0 0 0")
    again = draw_batch(pool, 12, "0 0 0")
    assert batch.images.shape == (12, 64, 64, 3)
    assert batch.fits.shape == batch.unsure.shape == (12, 12 + len(PHRASES))
    assert batch.fits[:, :12].diagonal().all()
    assert not (batch.fits & batch.unsure).any()
    assert batch.captions == again.captions
    assert np.array_equal(batch.images, again.images)


def test_the_loss_is_the_mean_log_probability_of_the_right_pairs():
    """Two images, three sentences, by hand: unsure pairs are out, a sentence that fits nothing is no target."""
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
    fits = torch.tensor([[True, True, False], [False, True, False]])
    unsure = torch.tensor([[False, False, False], [False, False, True]])
    e = np.exp
    first = -(np.log(e(2) / (e(2) + e(0) + e(1))) + np.log(e(0) / (e(2) + e(0) + e(1)))) / 2
    second = -np.log(e(1) / (e(0) + e(1)))
    images = (first + second) / 2
    zeroth = -np.log(e(2) / (e(2) + e(0)))
    one = -(np.log(e(0) / (e(0) + e(1))) + np.log(e(1) / (e(0) + e(1)))) / 2
    sentences = (zeroth + one) / 2
    assert np.isclose(contrastive_loss(logits, fits, unsure).item(), (images + sentences) / 2, atol=1e-6)


def test_the_scale_of_the_logits_ends_at_that_of_clip():
    assert logit_scale(0.0) == logit_scale(0.35) == 16
    assert np.isclose(logit_scale(0.525), 40)
    assert np.isclose(logit_scale(0.7), 100)
    assert np.isclose(logit_scale(1.0), 100)
