"""Who lives in the rendered world, and what keeps the test honest."""

from __future__ import annotations

import re
from itertools import combinations, islice

import pytest

from demo.captions import every_sentence
from demo.marks import COLOURS, EVERY_MARK, PARTS, SMALL_PARTS, Mark, differing_parts, in_contrast
from demo.species import SETS, SIBLINGS, reserved_marks, species_of, training_species

EVERY_SPECIES = [species for set_name in SETS for species in species_of(set_name)]


def test_a_mark_is_named_in_plain_english():
    assert Mark("beak", "red", "long").phrase == "a long red beak"
    assert Mark("crown", "orange", "spiky").phrase == "a spiky orange crest"
    assert Mark("crown", "orange", "flat").phrase == "a flat orange crown"
    assert Mark("cheek", "orange", "round").phrase == "an orange cheek"
    assert Mark("back", "blue", "plain").phrase == "a blue back"
    assert Mark("wings", "white", "barred").phrase == "barred white wings"
    assert len({mark.phrase for mark in EVERY_MARK}) == len(EVERY_MARK) == 180


@pytest.mark.parametrize("set_name", SETS)
def test_a_set_is_eight_genera_of_four_siblings_that_share_the_large_marks(set_name):
    species = species_of(set_name)
    assert len(species) == 32
    for start in range(0, 32, SIBLINGS):
        siblings = species[start : start + SIBLINGS]
        assert len({its.genus for its in siblings}) == 1
        for one, other in combinations(siblings, 2):
            differing = differing_parts(one.marks, other.marks)
            assert len(differing) >= 3
            assert set(differing) <= set(SMALL_PARTS)


def test_every_species_has_one_mark_a_part_and_no_two_touching_parts_of_one_colour():
    for species in EVERY_SPECIES:
        assert tuple(mark.part for mark in species.marks) == PARTS
        assert in_contrast(species.marks)
    same = tuple(Mark(mark.part, "red", mark.shape) for mark in EVERY_SPECIES[0].marks)
    assert not in_contrast(same)


def test_no_combination_of_a_set_is_ever_trained_on():
    reserved = reserved_marks()
    assert reserved == {species.marks for species in EVERY_SPECIES}
    assert not any(bird.marks in reserved for bird in islice(training_species(seed=0), 9000))


def test_training_species_follow_from_the_seed_alone():
    first, again, other = (list(islice(training_species(seed), 20)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_names_are_unique_and_say_nothing_that_a_caption_says():
    names = [species.name for species in EVERY_SPECIES]
    assert len(set(names)) == len(names) == 128
    said = {word for sentence in every_sentence() for word in re.findall("[a-z]+", sentence.lower())}
    assert {*PARTS, *COLOURS} <= said | {"crown"}
    for name in names:
        words = name.lower().split()
        assert len(words) == 2
        assert not said & set(words)


def test_an_unknown_set_is_refused_by_naming_the_sets_there_are():
    with pytest.raises(ValueError, match=r"'test_9'.*validation, test_0, test_1, test_2"):
        species_of("test_9")
