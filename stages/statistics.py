"""Statistics of right and wrong predictions: intervals, tests, calibration. Functions of arrays, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

SIGN_FLIPS = 19_999


def bootstrap_interval(hits: ndarray, resamples: int, confidence: float) -> tuple[float, float]:
    """Percentile interval of the mean of `hits` [n] (booleans) over resamples of the images; repeatable.

    Resampling n hits with replacement and counting them is a binomial draw, so no index is ever drawn.
    """
    import numpy as np

    drawn = np.random.default_rng(0).binomial(len(hits), float(np.mean(hits)), size=resamples) / len(hits)
    return _percentiles(drawn, confidence)


def paired_interval(differences: ndarray, resamples: int, confidence: float) -> tuple[float, float]:
    """Percentile interval of the mean of `differences` [n] (integers) over resamples of the images; repeatable.

    A difference is of two methods on one image, so an image is drawn for both at once. How often each value is drawn is
    multinomial in how often it occurs (for hits: by n10, n01 and the rest), so no index is drawn.
    """
    import numpy as np

    values, counts = np.unique(differences, return_counts=True)
    images = len(differences)
    drawn = np.random.default_rng(0).multinomial(images, counts / images, size=resamples) @ values / images
    return _percentiles(drawn, confidence)


def paired_p(differences: ndarray) -> float:
    """How likely two equally good methods differ at least so much, two-sided, in 0..1; repeatable.

    Were they equally good, each of `differences` [n] (integers, one an image) would have the other sign as easily.
    Where all that differ do so by the same amount, as hits do, this is McNemar's exact test: a binomial tail. Sums of
    differences of several sizes (methods of several draws) are compared with 19,999 random flips of their signs, so
    that p is at least 1 / 20,000.
    """
    import numpy as np

    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if len(sizes) <= 1:
        return mcnemar_p(int((differences > 0).sum()), int((differences < 0).sum()))
    rng = np.random.default_rng(0)
    flipped = np.zeros(SIGN_FLIPS, np.int64)
    for size, count in zip(sizes, counts, strict=True):
        flipped += size * (2 * rng.binomial(count, 0.5, size=SIGN_FLIPS) - count)
    as_far = int((np.abs(flipped) >= abs(int(differences.sum()))).sum())
    return (1 + as_far) / (1 + SIGN_FLIPS)


def mcnemar_p(n10: int, n01: int) -> float:
    """McNemar's exact test of `n10` images that only the first gets right and `n01` that only the second does.

    Each is a fair coin if the methods are equally good; two-sided, in 0..1, and 1 where there are none.
    """
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(min(n10, n01), n10 + n01, 0.5)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values corrected for being several, after Holm: below alpha where any mistake among them is that unlikely.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is smaller than one before it, nor above 1.
    """
    adjusted, largest = {}, 0.0
    for number, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - number) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def calibration_error(probabilities: ndarray, hits: ndarray, bins: int) -> float:
    """Expected calibration error, in 0..1: how far stated probabilities lie from how often they are right.

    `probabilities` [n] in 0..1 of the predicted classes, `hits` [n] booleans. Images are put into `bins` bins of equal
    width, (k / bins, (k + 1) / bins]; |share of hits - mean probability| of each counts by its share of the images
    (Guo et al. 2017, arXiv 1706.04599).
    """
    import numpy as np

    stated = np.asarray(probabilities, np.float64)
    places = np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)
    # share of a bin x |its hits' mean - its probabilities' mean| = |sum of both's difference| / all images
    return float(np.abs(np.bincount(places, weights=hits - stated)).sum() / len(stated))


def _percentiles(drawn: ndarray, confidence: float) -> tuple[float, float]:
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
