"""What is counted of every pair of a descriptor and an image, compiled: ranks, removals, and choices of crops."""

from __future__ import annotations

import numba
import numpy as np

from .kernel import kernel

_F = numba.float32
_I = numba.int64
# Fits of a descriptor up to which a scan, which takes sixteen at a time, is quicker than a search.
_SCANNED = 128


@kernel(_F[:, ::1], _F[::1], _I[::1], _F[::1], _I[::1])
def best_two(logits, first_values, first, second_values, second):
    """The best and the second best class of each image, of `logits` [C, B], and their logits; all others are [B].

    Among equals the lower class is better. Where there is no second class it is number C, with minus infinity.
    """
    classes, images = logits.shape
    first_values[:] = -np.inf
    second_values[:] = -np.inf
    first[:] = classes
    second[:] = classes
    for c in range(classes):
        for i in range(images):
            value = logits[c, i]
            if value > first_values[i]:
                second_values[i], second[i] = first_values[i], first[i]
                first_values[i], first[i] = value, c
            elif value > second_values[i]:
                second_values[i], second[i] = value, c


@numba.njit
def _scan(values, fits):
    """Twice the fits that are above each of the values, equal ones once: every fit against all values, many a step."""
    total = 0
    for fit in fits:
        below = np.int32(0)
        for i in range(len(values)):
            below += np.int32(values[i] < fit) + np.int32(values[i] <= fit)
        total += below
    return total


@numba.njit
def _search(values, fits):
    """The same by a search for each value."""
    total = 0
    for i in range(len(values)):
        at = np.searchsorted(fits, values[i])
        total += 2 * (len(fits) - at)
        while at < len(fits) and fits[at] == values[i]:
            total -= 1
            at += 1
    return total


@kernel(_F[:, ::1], _I[::1], _F[::1], _I[::1], _I[::1], _I, _I, _F[::1], _I[::1])
def count_ranks(cosines, labels, fits, offsets, starts, first, end, others, twice):
    """Add to `twice` [S] twice the pairs that descriptors of the classes from `first` to `end` order rightly.

    `cosines` [>= S', B] are those of these classes' descriptors and images with `labels` [B]. Descriptor s has its own
    class's cosines, in rising order, in `fits` from offsets[s] to offsets[s + 1]: each of these that is above the
    cosine of an image of another class counts two, an equal one counts one. Class c has the descriptors from starts[c].
    `others` [B] is scratch.
    """
    for c in range(first, end):
        for s in range(starts[c], starts[c + 1]):
            own = fits[offsets[s] : offsets[s + 1]]
            for i in range(len(labels)):
                others[i] = np.inf if labels[i] == c else cosines[s - starts[first], i]  # no fit is above infinity
            twice[s] += _scan(others, own) if len(own) <= _SCANNED else _search(others, own)


@kernel(
    _F[:, ::1], _F[:, ::1], _I[::1], _F[::1], _I[::1], _F[::1], _I[::1], _I[::1], _I, _I, _I[::1], _I[::1]
)  # fmt: skip
def count_removals(
    cosines, logits, labels, first_values, best, second_values, next_best, starts, first, end, gained, lost
):
    """Add the images that become right to `gained` [S], and wrong to `lost` [S], when each descriptor is removed alone.

    `logits` [C, B] are the mean cosines of classes and images, and what follows the labels is `best_two` of them.
    Without descriptor s its class c has the logit (M_c logit - cosine) / (M_c - 1); no other class changes. A class's
    only descriptor stays.
    """
    for c in range(first, end):
        count = starts[c + 1] - starts[c]
        if count < 2:
            continue
        for s in range(starts[c], starts[c + 1]):
            row = s - starts[first]
            more, fewer = 0, 0
            for i in range(len(labels)):
                leads = best[i] == c
                rival = next_best[i] if leads else best[i]
                limit = second_values[i] if leads else first_values[i]
                value = np.float32((count * logits[c, i] - cosines[row, i]) / (count - 1))
                wins = value > limit or (value == limit and c < rival)
                before = best[i] == labels[i]
                after = (c if wins else rival) == labels[i]
                more += after and not before
                fewer += before and not after
            gained[s] += more
            lost[s] += fewer


@kernel(
    _F[:, :, ::1], _I[::1], _I, _F[::1], _I[::1], _I[::1], _I[::1], _F[:, ::1], _I[:, ::1], _I[:, ::1]
)  # fmt: skip
def count_choices(cosines, numbers, start, highest, place, crops, images, best_cosines, best_images, best_crops):
    """Count which descriptor of its class each crop is most like, the first of equals, and keep the best crops.

    `cosines` [R, N, M] are of the crops of R images of one class, numbered by `numbers` [R], with the class's
    descriptors, which are those from `start`. Added to are `crops` [S] and `images` [S], those with such a crop; kept
    are the best crops of K different images, in falling order, in the other three [S, K]. `highest` and `place` [M] are
    scratch.
    """
    count, keep = cosines.shape[2], best_cosines.shape[1]
    for r in range(len(numbers)):
        highest[:count] = -np.inf
        for n in range(cosines.shape[1]):
            choice = 0
            for j in range(1, count):
                if cosines[r, n, j] > cosines[r, n, choice]:
                    choice = j
            crops[start + choice] += 1
            if cosines[r, n, choice] > highest[choice]:
                highest[choice], place[choice] = cosines[r, n, choice], n
        for j in range(count):
            if highest[j] == -np.inf:
                continue
            s = start + j
            images[s] += 1
            at = keep
            while at > 0 and highest[j] > best_cosines[s, at - 1]:
                at -= 1
            if at == keep:
                continue
            for k in range(keep - 1, at, -1):
                best_cosines[s, k] = best_cosines[s, k - 1]
                best_images[s, k], best_crops[s, k] = best_images[s, k - 1], best_crops[s, k - 1]
            best_cosines[s, at], best_images[s, at], best_crops[s, at] = highest[j], numbers[r], place[j]
