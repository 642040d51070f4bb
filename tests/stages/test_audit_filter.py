"""Which descriptors of a class are dropped, by figures and by people."""

from __future__ import annotations

import math

import pytest

from stages.audit_filter import Judged, doubt, is_hallucinated, rank_doubtful, steps

GOOD = Judged(auc=0.9, p=0.001, gain=-2)
STRAY = Judged(auc=0.5, p=0.5, gain=0)
COSTLY = Judged(auc=0.8, p=0.01, gain=3)
BOTH = STRAY._replace(gain=1)


def ranked(*descriptors: Judged) -> list[int]:
    return [place for _, place in rank_doubtful([descriptors])]


def test_what_fits_by_chance_and_what_costs_images_is_doubtful():
    assert doubt(GOOD) is None
    assert doubt(STRAY) == "fits no better than chance"
    assert doubt(COSTLY) == "3 more images are right without it"
    assert doubt(BOTH) == "fits no better than chance and 1 more image is right without it"


def test_two_reasons_come_first_then_the_lowest_auc_over_all_classes():
    low = STRAY._replace(auc=0.2)
    assert rank_doubtful([[GOOD, COSTLY, GOOD, STRAY], [GOOD, GOOD, low, BOTH]]) == [(1, 3), (1, 2), (0, 3), (0, 1)]


def test_never_more_than_half_of_a_class_the_worst_first():
    assert ranked(STRAY, COSTLY, GOOD) == [0]
    assert ranked(STRAY, COSTLY, BOTH, STRAY._replace(auc=0.2), GOOD) == [2, 3]


def test_two_are_left_where_there_are_two():
    assert ranked(STRAY) == ranked(STRAY, STRAY) == []
    assert ranked(STRAY, GOOD, STRAY) == [0]


def test_what_is_not_known_is_no_reason():
    assert is_hallucinated(math.nan) is None
    assert ranked(GOOD, GOOD, GOOD, Judged(math.nan, math.nan, 5)) == []


def test_what_has_a_verdict_is_not_up_for_choice_and_a_dropped_one_counts():
    keep, drop = STRAY._replace(verdict="keep"), GOOD._replace(verdict="drop")
    assert ranked(keep, GOOD, GOOD, STRAY) == [3]
    assert ranked(drop, STRAY, STRAY._replace(auc=0.4), GOOD) == [2]
    assert ranked(drop, drop, STRAY, GOOD) == []


@pytest.mark.parametrize("count", [0, 1, 5, 16, 1000])
def test_from_none_to_all_are_tried(count):
    tried = steps(count)
    assert (tried[0], tried[-1]) == (0, count)
    assert tried == sorted(set(tried))
    assert len(tried) == min(count, 16) + 1
