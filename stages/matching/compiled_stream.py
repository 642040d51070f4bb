"""What is sequential in a stream, compiled: which sample takes whose place, and the votes of those in place.

A cache holds its items of a class by entropy, the lowest first; equal ones in the order in which they came. Who
enters depends on the logits without caches alone, so it is settled for the whole stream before a vote is counted.
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


@kernel(_F[::1], _I[::1], numba.boolean[::1], _F[:, ::1], _I[:, ::1], _I[::1], _I[::1])
def assign_slots(entropies, predicted, candidates, held, slots, counts, taken):
    """The slot that each sample of a stream takes, into `taken` [T]; -1 where it is not kept.

    `entropies`, `predicted` (classes) and `candidates` are [T], in the stream's order. A class with room takes any
    candidate; a full one gives up its last item, of the highest entropy, for a candidate below it. Slots are numbered
    as they are first used. `held` [C, capacity] (entropies in order), `slots` (where these lie) and `counts` [C],
    zero at first, are the state.
    """
    capacity = held.shape[1]
    used = 0
    for t in range(len(entropies)):
        taken[t] = -1
        c, entropy = predicted[t], entropies[t]
        if not candidates[t]:
            continue
        if counts[c] < capacity:
            place, slot = counts[c], used
            counts[c] += 1
            used += 1
        elif entropy < held[c, capacity - 1]:
            place, slot = capacity - 1, slots[c, capacity - 1]
        else:
            continue
        while place > 0 and entropy < held[c, place - 1]:
            held[c, place], slots[c, place] = held[c, place - 1], slots[c, place - 1]
            place -= 1
        held[c, place], slots[c, place], taken[t] = entropy, slot, slot


@kernel(_F[:, ::1], _F[:, ::1], _I[::1], _I[::1], _I[::1], _I[::1], _I[::1], _F, _F, numba.int64, _F[:, ::1])
def add_votes(affinities, weights, first_rows, end_rows, starts, stops, classes, alpha, beta, row, votes):
    """Add alpha x sum_n weight_n exp(-beta (1 - affinity_n)) of each item to the classes that it speaks for, at the
    samples for which it is in its place.

    `affinities` [I x N, W] and `votes` [C, W] have a sample a column, from number `row` of the block on; W is a
    multiple of sixteen. An item has N of them, with `weights` [I, N]. It is there from the block's sample
    `first_rows[i]` until before `end_rows[i]`, and speaks for classes[starts[i]:stops[i]].
    """
    width, parts = affinities.shape[1], weights.shape[1]
    along = np.arange(WIDTH).astype(np.float32)
    zero, factor, highest = spread(0.0), spread(beta), spread(_HIGHEST)
    for first in range(0, width, WIDTH):
        rows = load(along, 0) + spread(row + first)
        for i in range(len(weights)):
            if first_rows[i] >= row + first + WIDTH or end_rows[i] <= row + first:
                continue
            vote = zero
            for n in range(parts):
                power = load(affinities, (i * parts + n) * width + first) * factor - factor
                power = above(power, highest, highest, power)
                vote = vote + spread(alpha * weights[i, n]) * exp(power)
            vote = above(rows, spread(first_rows[i] - 0.5), vote, zero)
            vote = above(spread(end_rows[i] - 0.5), rows, vote, zero)
            for k in range(starts[i], stops[i]):
                at = classes[k] * width + first
                store(votes, at, load(votes, at) + vote)
