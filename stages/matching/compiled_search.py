"""The search for alpha and beta, compiled: sixteen images side by side, one exponential an entry and beta.

For one image and beta, the alphas for which its label wins are an interval: against class c it must hold that
alpha (A_c - A_y) < base_y - base_c, a half line. So the alphas are looked at once an image, not once a class.
"""

from __future__ import annotations

import numba
import numpy as np

from .exponential import exp
from .kernel import kernel
from .lanes import WIDTH, above, load, spread, store

_F = numba.float32
_I = numba.int64
_HIGHEST = 88.0


@numba.njit
def _count(votes, base, label, lane, column, alphas, hits):
    """Add one to `hits` wherever the label of an image wins; a tie goes to the lower class."""
    lower_open, lower, upper, upper_open = -np.inf, -np.inf, np.inf, np.inf
    own, own_base = np.float64(votes[label * WIDTH + lane]), np.float64(base[label, column])
    for c in range(len(base)):
        if c == label:
            continue
        more, lead = votes[c * WIDTH + lane] - own, own_base - base[c, column]
        if more == 0:
            if lead < 0 or (lead == 0 and c < label):
                return
        elif more > 0:
            if c < label:
                upper_open = min(upper_open, lead / more)
            else:
                upper = min(upper, lead / more)
        elif c < label:
            lower_open = max(lower_open, lead / more)
        else:
            lower = max(lower, lead / more)
    for a in range(len(alphas)):
        if lower_open < alphas[a] < upper_open and lower <= alphas[a] <= upper:
            hits[a] += 1


@kernel(_F[:, ::1], _F[:, ::1], _I[::1], _I[::1], _F[::1], _F[::1], numba.float64[::1], _F[::1], _I[:, ::1])
def count_hits(affinities, base, labels, starts, weights, betas, alphas, votes, hits):
    """Add to `hits` [betas, alphas] how many of `labels` [B] are the first class with the largest base + alpha votes.

    `affinities` [S, W] and `base` [C, W] have an image a column; W is B rounded up to sixteen, and what stands in the
    columns beyond B counts for nothing. Entries are sorted by class: class c has those from `starts[c]` to
    `starts[c + 1]`, with `weights` [S]. `votes` [C x 16] is scratch.
    """
    width, classes = base.shape[1], len(base)
    highest = spread(_HIGHEST)
    for first in range(0, width, WIDTH):
        for k in range(len(betas)):
            beta = spread(betas[k])
            for c in range(classes):
                together = spread(0.0)
                for s in range(starts[c], starts[c + 1]):
                    power = load(affinities, s * width + first) * beta - beta
                    power = above(power, highest, highest, power)
                    together = together + spread(weights[s]) * exp(power)
                store(votes, c * WIDTH, together)
            for lane in range(min(WIDTH, len(labels) - first)):
                _count(votes, base, labels[first + lane], lane, first + lane, alphas, hits[k])
