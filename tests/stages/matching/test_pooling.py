from __future__ import annotations

import pytest
import torch

from stages.matching.pooling import mean_cosine, mean_crop, mean_text
from stages.matching.ranking import best_classes


def test_the_two_ways_to_average_descriptions_disagree_as_in_the_worked_example():
    image = torch.tensor([[[1.0, 0.0]]])
    texts = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    assert mean_cosine(image, texts, mask)[0].tolist() == pytest.approx([0.5, 0.6])
    assert (image[:, 0] @ mean_text(texts, mask).T)[0].tolist() == pytest.approx([0.7071, 0.6], abs=1e-4)


def test_what_stands_in_padding_does_not_matter(unit_rows):
    crops, texts = unit_rows(2, 3, 4), unit_rows(2, 3, 4, seed=1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    junk = torch.where(mask.unsqueeze(-1), texts, torch.nan)
    torch.testing.assert_close(mean_text(junk, mask), mean_text(texts, mask))
    torch.testing.assert_close(mean_cosine(crops, junk, mask), mean_cosine(crops, texts, mask))
    torch.testing.assert_close(mean_text(texts, mask)[1], texts[1, 0])


def test_the_mean_cosine_is_the_mean_over_all_pairs(unit_rows):
    crops, texts = unit_rows(2, 3, 4), unit_rows(5, 6, 4, seed=1)
    pairs = torch.einsum("bnd,cmd->bcnm", crops, texts).mean(dim=(2, 3))
    torch.testing.assert_close(mean_cosine(crops, texts, torch.ones(5, 6, dtype=torch.bool)), pairs)


def test_means_are_unit_rows_and_float32_even_from_half_precision(unit_rows):
    crops = unit_rows(2, 3, 4).half()
    mean = mean_crop(crops)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(mean_text(crops, torch.ones(2, 3, dtype=torch.bool)), mean)


def test_a_class_without_texts_is_refused(unit_rows):
    with pytest.raises(ValueError, match=r"no text for class number \[1\]"):
        mean_text(unit_rows(2, 1, 4), torch.tensor([[True], [False]]))


def test_among_equal_scores_the_lowest_index_comes_first():
    logits = torch.zeros(1, 1000)
    logits[0, 500] = 1.0
    values, indices = best_classes(logits, 4)
    assert indices[0].tolist() == [500, 0, 1, 2]
    assert values[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert best_classes(logits[:, :3], 5)[1][0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_a_logit_that_is_no_number_wins_nothing_but_is_refused(wrong):
    logits = torch.zeros(3, 4)
    logits[1, 2] = wrong
    with pytest.raises(ValueError, match=r"logits of class number \[2\] \(1 in all\) are nan or infinite"):
        best_classes(logits, 2)
