"""Sinkhorn's iterations as plain scaling, compiled: sixteen problems side by side, one exponential an entry.

With K = exp(gain x value), shifted so that its largest entry is 1, an iteration is r = a / (K c), c = b / (K' r): one
pass over K, row by row, in which a row's sum gives its r and r goes into the sums of the columns at once. No exponent
is taken after the first, which is what makes it several times quicker than the iteration on logarithms. float32 bears
that as long as a problem's exponents lie within `REACH`; problems beyond it are marked for who can do better.

Values are [Q, N, M, P]: Q times P problems of N x M, of which sixteen along P are taken at a time. Weights are
[Q, N, P] and [Q, M, P]; zero marks padding. Any strides will do; a last one of 1 is the quickest.
"""

from __future__ import annotations

import numba
import numpy as np

from .exponential import exp
from .kernel import kernel
from .lanes import WIDTH, above, gather, load, scatter, spread, store, turn

REACH = 40.0
"""How far apart the exponents of a problem may lie: scalings stay within e^80, and float32 ends at e^88."""

ROWS = 3
_BYTES = 4
_LEAST = 1.2e-38
_F = numba.float32


def groups(outer: int, problems: int) -> int:
    """How many groups of sixteen there are in Q x P problems."""
    return outer * -(-problems // WIDTH)


def scratch_length(rows: int, columns: int) -> int:
    """The float32 numbers, zero at first, that a thread needs for problems of this size; best aligned to 64 bytes."""
    rows += -rows % ROWS
    return WIDTH * (2 * rows * columns + 2 * rows + 3 * columns + 1)


@numba.njit
def _place(group, problems):
    """The problems of a group: place along Q, first along P, how many."""
    abreast = -(-problems // WIDTH)
    first = (group % abreast) * WIDTH
    return group // abreast, first, min(WIDTH, problems - first)


@numba.njit
def _parts(rows, columns):
    """Where in the scratch each part begins: kernel, values, a, b, r, c, column sums, exponents' ranges.

    `rows` are the real ones and enough empty ones, of weight zero, to make threes.
    """
    entries = rows * columns * WIDTH
    a = 2 * entries
    b = a + rows * WIDTH
    r = b + columns * WIDTH
    c = r + rows * WIDTH
    sums = c + columns * WIDTH
    return 0, entries, a, b, r, c, sums, sums + columns * WIDTH


@numba.njit
def _read(source, at, step, count, scratch, to):
    if count < WIDTH:
        store(scratch, to, gather(source, at, step, count))
    elif step == 1:
        store(scratch, to, load(source, at))
    else:
        store(scratch, to, gather(source, at, step, WIDTH))


@numba.njit
def _read_weights(weights, q, first, count, scratch, to):
    along_q, along_k, along_p = weights.strides
    for k in range(weights.shape[1]):
        at = (q * along_q + k * along_k + first * along_p) // _BYTES
        _read(weights, at, along_p // _BYTES, count, scratch, to + k * WIDTH)


@numba.njit
def _lie_together(values, count):
    """Whether each of sixteen problems lies in memory as one piece, of sixteen entries at least."""
    _, rows, columns, _ = values.shape
    _, along_n, along_m, _ = values.strides
    return count == WIDTH and along_m == _BYTES and along_n == columns * _BYTES and rows * columns >= WIDTH


@numba.njit
def _read_values(values, q, first, count, scratch, to):
    _, rows, columns, _ = values.shape
    along_q, along_n, along_m, along_p = values.strides
    start, step = (q * along_q + first * along_p) // _BYTES, along_p // _BYTES
    if step != 1 and _lie_together(values, count):
        last = rows * columns - WIDTH
        for entry in range(0, last + WIDTH, WIDTH):
            entry = min(entry, last)  # the last sixteen may be read twice
            turn(values, start + entry, step, scratch, to + entry * WIDTH, WIDTH)
        return
    for n in range(rows):
        for m in range(columns):
            at = start + (n * along_n + m * along_m) // _BYTES
            _read(values, at, step, count, scratch, to + (n * columns + m) * WIDTH)


@numba.njit
def _write_values(values, q, first, count, scratch, to):
    """The way back of `_read_values`."""
    _, rows, columns, _ = values.shape
    along_q, along_n, along_m, along_p = values.strides
    start, step = (q * along_q + first * along_p) // _BYTES, along_p // _BYTES
    if _lie_together(values, count):
        last = rows * columns - WIDTH
        for entry in range(0, last + WIDTH, WIDTH):
            entry = min(entry, last)
            turn(scratch, to + entry * WIDTH, WIDTH, values, start + entry, step)
        return
    for n in range(rows):
        for m in range(columns):
            at = start + (n * along_n + m * along_m) // _BYTES
            scatter(values, at, step, count, load(scratch, to + (n * columns + m) * WIDTH))


@numba.njit
def _read_group(values, a, b, gain, q, first, count, scratch):
    """Fill the scratch with a group's weights, values (zero at padding) and kernel.

    Returns whether any of its problems is within reach; the ranges of their exponents are left in the scratch, a nan
    where a value is not finite.
    """
    _, rows, columns, _ = values.shape
    kernel_at, values_at, a_at, b_at, _, _, _, ranges_at = _parts(rows + -rows % ROWS, columns)
    _read_weights(a, q, first, count, scratch, a_at)
    _read_weights(b, q, first, count, scratch, b_at)
    _read_values(values, q, first, count, scratch, values_at)
    zero, factor = spread(0.0), spread(gain)
    top, low, finite = spread(-np.inf), spread(np.inf), spread(0.0)
    for n in range(rows):
        row = load(scratch, a_at + n * WIDTH)
        for m in range(columns):
            to = values_at + (n * columns + m) * WIDTH
            weight = load(scratch, b_at + m * WIDTH)
            value = above(row, zero, above(weight, zero, load(scratch, to), zero), zero)
            store(scratch, to, value)
            power = value * factor
            finite = finite + (power - power)
            inside = above(row, zero, above(weight, zero, power, top), top)
            top = above(inside, top, inside, top)
            inside = above(row, zero, above(weight, zero, power, low), low)
            low = above(low, inside, inside, low)
    store(scratch, ranges_at, top - low + finite)
    reachable = False
    for lane in range(count):
        reachable |= scratch[ranges_at + lane] <= REACH
    if reachable:
        for n in range(rows):
            row = load(scratch, a_at + n * WIDTH)
            for m in range(columns):
                entry = (n * columns + m) * WIDTH
                weight = load(scratch, b_at + m * WIDTH)
                power = exp(load(scratch, values_at + entry) * factor - top)
                store(scratch, kernel_at + entry, above(row, zero, above(weight, zero, power, zero), zero))
    return reachable


@numba.njit
def _scale(rows, columns, iterations, scratch):
    """Sinkhorn's iterations on the kernel in the scratch; leaves r and c there. Columns are scaled last.

    Three rows at a time share what is read of c and of the sums, and hide each other's waiting.
    """
    rows += -rows % ROWS
    kernel_at, _, a_at, b_at, r_at, c_at, sums_at, _ = _parts(rows, columns)
    zero, one, least = spread(0.0), spread(1.0), spread(_LEAST)
    along = columns * WIDTH
    for m in range(0, along, WIDTH):
        store(scratch, c_at + m, one)
    for _ in range(iterations):
        for m in range(0, along, WIDTH):
            store(scratch, sums_at + m, zero)
        for n in range(0, rows, ROWS):
            first = kernel_at + n * along
            second, third = first + along, first + 2 * along
            x, y, z = zero, zero, zero
            for m in range(0, along, WIDTH):
                c = load(scratch, c_at + m)
                x = x + load(scratch, first + m) * c
                y = y + load(scratch, second + m) * c
                z = z + load(scratch, third + m) * c
            # A padded row has no mass and a weight of zero: 0 / least is its zero.
            x = load(scratch, a_at + n * WIDTH) / above(x, least, x, least)
            y = load(scratch, a_at + n * WIDTH + WIDTH) / above(y, least, y, least)
            z = load(scratch, a_at + n * WIDTH + 2 * WIDTH) / above(z, least, z, least)
            store(scratch, r_at + n * WIDTH, x)
            store(scratch, r_at + n * WIDTH + WIDTH, y)
            store(scratch, r_at + n * WIDTH + 2 * WIDTH, z)
            for m in range(0, along, WIDTH):
                more = load(scratch, sums_at + m) + load(scratch, first + m) * x
                more = more + load(scratch, second + m) * y
                store(scratch, sums_at + m, more + load(scratch, third + m) * z)
        for m in range(0, along, WIDTH):
            mass = load(scratch, sums_at + m)
            store(scratch, c_at + m, load(scratch, b_at + m) / above(mass, least, mass, least))


@numba.njit
def _write(lanes, found, q, first, count):
    along_q, along_p = found.strides
    at = (q * along_q + first * along_p) // _BYTES
    scatter(found, at, along_p // _BYTES, count, lanes)


_VALUES, _WEIGHTS, _SCRATCH = _F[:, :, :, :], _F[:, :, :], _F[::1]
_SETTINGS = (_F, numba.int64, numba.int64, numba.int64)


@kernel(_VALUES, _WEIGHTS, _WEIGHTS, *_SETTINGS, _SCRATCH, _F[:, :], _F[:, :])
def scaled_scores(values, a, b, gain, iterations, start, stop, scratch, scores, ranges):
    """The sums of plan x value of the groups from `start` to `stop`, into `scores` [Q, P].

    The plan's kernel is exp(gain x value): with cosines and gain 1 / epsilon these are 1 - EMD. `ranges` [Q, P] is how
    far apart each problem's exponents lie; unless that is at most `REACH`, its score means nothing.
    """
    _, rows, columns, problems = values.shape
    kernel_at, values_at, _, _, r_at, c_at, _, ranges_at = _parts(rows + -rows % ROWS, columns)
    for group in range(start, stop):
        q, first, count = _place(group, problems)
        if _read_group(values, a, b, gain, q, first, count, scratch):
            _scale(rows, columns, iterations, scratch)
        score = spread(0.0)
        for n in range(rows):
            along = spread(0.0)
            for m in range(columns):
                entry = (n * columns + m) * WIDTH
                moved = load(scratch, kernel_at + entry) * load(scratch, c_at + m * WIDTH)
                along = along + moved * load(scratch, values_at + entry)
            score = score + along * load(scratch, r_at + n * WIDTH)
        _write(score, scores, q, first, count)
        _write(load(scratch, ranges_at), ranges, q, first, count)


@kernel(_VALUES, _WEIGHTS, _WEIGHTS, *_SETTINGS, _SCRATCH, _VALUES, _F[:, :])
def scaled_plans(values, a, b, gain, iterations, start, stop, scratch, plans, ranges):
    """The plans of the groups from `start` to `stop`, into `plans` [Q, N, M, P]; else as `scaled_scores`.

    With costs, the gain is -1 / epsilon.
    """
    _, rows, columns, problems = values.shape
    kernel_at, values_at, _, _, r_at, c_at, _, ranges_at = _parts(rows + -rows % ROWS, columns)
    for group in range(start, stop):
        q, first, count = _place(group, problems)
        if _read_group(values, a, b, gain, q, first, count, scratch):
            _scale(rows, columns, iterations, scratch)
        for n in range(rows):
            r = load(scratch, r_at + n * WIDTH)
            for m in range(columns):
                entry = (n * columns + m) * WIDTH
                moved = load(scratch, kernel_at + entry) * r * load(scratch, c_at + m * WIDTH)
                store(scratch, values_at + entry, moved)
        _write_values(plans, q, first, count, scratch, values_at)
        _write(load(scratch, ranges_at), ranges, q, first, count)
