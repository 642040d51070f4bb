"""What is sequential in a stream, compiled: which sample takes whose place, and the votes of those in place.

A cache holds its items of a class by entropy, the lowest first; equal ones in the order in which they came. Who
enters depends on the logits without caches alone, so it is settled for the whole stream before a vote is counted.
"""

from __future__ import annotations

import numba
import numpy as np

from .kernel import kernel
from .lanes import WIDTH, above, load, spread, store

_F = numba.float32
_I = numba.int64


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


@kernel(_F[:, ::1], _I[::1], _I[::1], _I[::1], _I[::1], _I[::1], _F, _F[:, ::1])
def add_votes(responses, first_rows, end_rows, starts, stops, classes, alpha, votes):
    """Add alpha x responses to the classes that each item speaks for, at the rows for which it is in its place.

    `responses` [I, W] and `votes` [C, W] have a sample a column, in the stream's order, W a multiple of sixteen. Item i
    is there from sample `first_rows[i]` until before `end_rows[i]`, and speaks for classes[starts[i]:stops[i]].
    """
    width = responses.shape[1]
    along = np.arange(WIDTH).astype(np.float32)
    for first in range(0, width, WIDTH):
        rows, zero, factor = load(along, 0) + spread(first), spread(0.0), spread(alpha)
        for i in range(len(responses)):
            if first_rows[i] >= first + WIDTH or end_rows[i] <= first:
                continue
            vote = factor * load(responses, i * width + first)
            vote = above(rows, spread(first_rows[i] - 0.5), vote, zero)
            vote = above(spread(end_rows[i] - 0.5), rows, vote, zero)
            for k in range(starts[i], stops[i]):
                at = classes[k] * width + first
                store(votes, at, load(votes, at) + vote)
