"""Soft matching's pass over similarities, compiled: the largest, the exponentials and their sums by class.

One row after the other, sixteen similarities at a time; a row of a block is read from memory once. Blocks know nothing
of each other: each leaves its own largest logit and mass a row, and `add_votes` brings all to the common one.
"""

from __future__ import annotations

import numba
import numpy as np

from .exponential import exp
from .kernel import kernel
from .lanes import WIDTH, above, highest, load, spread, total

_F = numba.float32


@kernel(_F[:, ::1], _F[:, ::1], numba.int64, _F, _F[:, :], _F[::1], _F[::1])
def read_block(similarity, prior, text_count, shift, numerators, largest, mass):
    """What the rows of a block say of its classes: sum_j e_j (s_j + shift) a class, with e = exp(s + prior - largest).

    `similarity` [R, C x M] may be followed by sixteen numbers that are read and not counted. `prior` [C, M'] is added
    inside the exponential; -inf marks padding, whose similarity may be anything; M' is M = `text_count` rounded up to
    sixteen, and -inf there. Written are `numerators` [R, C], `largest` [R] and `mass` [R], the sum of all e.
    """
    classes, padded = prior.shape
    zero, outside, further = spread(0.0), spread(-np.inf), spread(shift)
    for row in range(similarity.shape[0]):
        start = row * similarity.shape[1]
        top = outside
        for c in range(classes):
            for j in range(0, padded, WIDTH):
                share = load(prior, c * padded + j)
                logit = load(similarity, start + c * text_count + j) + share
                logit = above(share, outside, logit, outside)
                top = above(logit, top, logit, top)
        reference = highest(top)
        top = spread(reference)
        together = zero
        for c in range(classes):
            votes = zero
            for j in range(0, padded, WIDTH):
                share = load(prior, c * padded + j)
                s = above(share, outside, load(similarity, start + c * text_count + j), zero)
                e = above(share, outside, exp(s + share - top), zero)
                together = together + e
                votes = votes + e * (s + further)
            numerators[row, c] = total(votes)
        largest[row] = reference
        mass[row] = total(together)


@kernel(_F[:, ::1], _F[:, ::1], _F[:, ::1], numba.int64, _F[:, ::1])
def add_votes(numerators, largest, mass, classes, logits):
    """Logits [B, C]: the sums over each image's rows of numerators [B x F, C] / the row's mass over all blocks.

    `largest` and `mass` [K, B x F] are those of the K blocks of so many `classes`.
    """
    blocks, rows = largest.shape
    images, class_count = logits.shape
    logits[:] = 0.0
    for row in range(rows):
        image = row // (rows // images)
        reference = largest[:, row].max()
        whole = np.float32(0.0)
        for k in range(blocks):
            whole += mass[k, row] * np.exp(largest[k, row] - reference)
        for k in range(blocks):
            weight = np.exp(largest[k, row] - reference) / whole
            for c in range(k * classes, min((k + 1) * classes, class_count)):
                logits[image, c] += numerators[row, c] * weight
