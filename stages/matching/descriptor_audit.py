"""What each descriptor does, by features alone: how well it fits its class, what its removal changes, what chooses it.

Images come in blocks and are let go of; what is kept of one are its cosines with the descriptors of its own class, four
bytes each. The classifier behind removals is the mean of a class's cosines (algorithms.md 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .compiled_audit import best_two, count_choices, count_ranks, count_removals
from .ranking import best_classes
from .threads import share

_TASK = 1024
"""Descriptors that are compared with a block of images at a time: their cosines stay in a core's cache."""


@dataclass(frozen=True, eq=False)
class Described:
    """The descriptors of C classes, class after class: c has those from starts[c] to starts[c + 1], at least one."""

    vectors: Tensor
    """[S, d] unit rows, float32"""
    starts: ndarray
    """int64 [C + 1]"""

    @property
    def counts(self) -> ndarray:
        """How many descriptors each class has, [C]."""
        return np.diff(self.starts)

    @property
    def owners(self) -> ndarray:
        """The class of each descriptor, [S]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def average(self, kept: ndarray | None = None) -> Tensor:
        """The mean of each class's descriptors, or of those that are `kept` [S] (booleans), as it is, [C, d].

        ValueError where a class would have none.
        """
        weights = np.ones(len(self.vectors), np.float32) if kept is None else kept.astype(np.float32)
        sums = np.add.reduceat(weights, self.starts[:-1])
        if not sums.all():
            raise ValueError(f"class number {np.flatnonzero(sums == 0)[:5].tolist()} would have no descriptor left")
        shares = torch.from_numpy(weights / sums[self.owners]).unsqueeze(1)
        found = self.vectors.new_zeros(len(sums), self.vectors.shape[1])
        return found.index_add_(0, torch.from_numpy(self.owners), self.vectors * shares)


@dataclass(frozen=True, eq=False)
class Fit:
    """How well descriptors fit their classes, and what the classifier loses or gains without each of them."""

    images: ndarray
    """of each class, int64 [C]"""
    auc: ndarray
    """[S] in 0..1: how likely an image of the class has a higher cosine than one of another class, ties counted half;
    nan where there are none to compare"""
    gained: ndarray
    """images [S] that become right without the descriptor, int64"""
    lost: ndarray
    """images [S] that become wrong without it, int64"""
    right: int
    """images that are right with all descriptors"""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which descriptors of their class crops are most like; of equals the first."""

    crops: ndarray
    """crops that are most like this descriptor, int64 [S]"""
    images: ndarray
    """images with such a crop, int64 [S]"""
    read: ndarray
    """images of each class whose crops were looked at, int64 [C]"""
    each: int
    """crops an image"""
    best_images: ndarray
    """numbers of the images of the most similar such crops, one an image, best first, int64 [S, K]; -1 where none is"""
    best_crops: ndarray
    """their numbers in these images, int64 [S, K]"""
    best_cosines: ndarray
    """float32 [S, K]"""


def fit_descriptors(images: Callable[[], Iterable[Tensor]], labels: ndarray, described: Described) -> Fit:
    """AUC of every descriptor, and what removing each alone does to the mean-of-cosines classifier.

    `images()` gives blocks [B, d] of unit rows in float32, the same ones twice, in the order of `labels` [n], the
    classes' numbers. AUC compares the cosines of images of the class with those of all others. Removal changes one
    column of the logits, so every image needs its best two classes alone; counts are exact, and equal logits go to the
    lower class. Time is that of the cosines, n x S products.
    """
    counts = np.bincount(labels, minlength=len(described.counts))
    owners = described.owners
    offsets = np.concatenate([[0], np.cumsum(counts[owners])])
    fits = _own_cosines(images(), labels, described, counts, offsets)
    twice, gained, lost = (np.zeros(len(owners), np.int64) for _ in range(3))
    average, right = described.average(), 0
    for block, own in _labelled(images(), labels):
        logits = (average @ block.T).contiguous().numpy()
        ranked = _best_two(logits)
        right += int((ranked[1] == own).sum())

        def worker(block=block, own=own, logits=logits, ranked=ranked) -> Callable[[tuple[int, int]], None]:
            room, others = torch.empty(0), np.empty(len(block), np.float32)

            def count(task: tuple[int, int]) -> None:
                nonlocal room
                vectors = described.vectors[described.starts[task[0]] : described.starts[task[1]]]
                if len(room) < len(vectors):
                    room = torch.empty(len(vectors), len(block))
                cosines = torch.mm(vectors, block.T, out=room[: len(vectors)]).numpy()
                count_ranks(cosines, own, fits, offsets, described.starts, *task, others, twice)
                count_removals(cosines, logits, own, *ranked, described.starts, *task, gained, lost)

            return count

        share(list(_tasks(described.starts)), worker)
    own, others = counts[owners], len(labels) - counts[owners]
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = twice / (2.0 * own * others)
    return Fit(counts, auc, gained, lost, right)


def chance_p(auc: ndarray, images: ndarray, others: ndarray, *, fewest: int) -> ndarray:
    """How likely chance gives an AUC at least so high, of a descriptor that says nothing: one-sided, in 0..1, [S].

    By the normal approximation of Mann and Whitney's statistic: of m `images` and n `others` AUC then has the mean 1/2
    and the variance (m + n + 1) / (12 m n). nan where either are fewer than `fewest`.
    """
    from scipy.special import ndtr

    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((images + others + 1) / (12.0 * images * others))
        p = ndtr(-(auc - 0.5) / spread)
    return np.where(np.minimum(images, others) < fewest, np.nan, p)


def choose_descriptors(
    images: Iterable[Tensor], labels: ndarray, described: Described, *, each: int, keep: int = 3
) -> Chosen:
    """Which descriptor of its class every crop is most like, and of each descriptor the `keep` most similar such crops.

    `images` are blocks [B, N, d] of the crops' unit rows in float32, N = `each`, in the order of `labels` [n]. Crops
    are compared with the descriptors of their own class alone.
    """
    total, most = len(described.vectors), int(described.counts.max())
    crops, chosen = (np.zeros(total, np.int64) for _ in range(2))
    best_cosines = np.full((total, keep), -np.inf, np.float32)
    best_images, best_crops = (np.full((total, keep), -1, np.int64) for _ in range(2))
    scratch = np.empty(most, np.float32), np.empty(most, np.int64)
    done = 0
    for block, own in _labelled(images, labels):
        for c, rows in _by_class(own):
            start, stop = described.starts[c], described.starts[c + 1]
            cosines = (block[rows] @ described.vectors[start:stop].T).contiguous().numpy()
            found = (crops, chosen, best_cosines, best_images, best_crops)
            count_choices(cosines, rows + done, start, *scratch, *found)
        done += len(own)
    read = np.bincount(labels, minlength=len(described.counts))
    return Chosen(crops, chosen, read, each, best_images, best_crops, best_cosines)


def nearest_of_class(described: Described) -> tuple[ndarray, ndarray]:
    """The other descriptor of its class that each is most like, [S], -1 where it is the only one, and their cosine."""
    nearest = np.full(len(described.vectors), -1, np.int64)
    cosines = np.full(len(described.vectors), np.nan, np.float32)
    for start, stop in zip(described.starts[:-1], described.starts[1:], strict=True):
        if stop - start > 1:
            vectors = described.vectors[start:stop]
            alike = (vectors @ vectors.T).fill_diagonal_(-torch.inf)
            values, places = alike.max(dim=1)
            cosines[start:stop], nearest[start:stop] = values.numpy(), places.numpy() + start
    return nearest, cosines


def classify(images: Iterable[Tensor], average: Tensor) -> ndarray:
    """The class whose mean of cosines is the highest for each image, the lowest of equals: int64 [n].

    `images` are blocks [B, d], `average` [C, d] (`Described.average`).
    """
    found = [best_classes(block @ average.T, 1)[1][:, 0].numpy() for block in images]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _own_cosines(
    images: Iterable[Tensor], labels: ndarray, described: Described, counts: ndarray, offsets: ndarray
) -> ndarray:
    """Each descriptor's cosines with the images of its class, in rising order, from offsets[s] to offsets[s + 1]."""
    fits = np.empty(offsets[-1], np.float32)
    views = {}
    for c in np.flatnonzero(counts):
        start, stop = described.starts[c], described.starts[c + 1]
        views[c] = fits[offsets[start] : offsets[stop]].reshape(stop - start, counts[c])
    filled = np.zeros(len(counts), np.int64)
    for block, own in _labelled(images, labels):
        for c, rows in _by_class(own):
            vectors = described.vectors[described.starts[c] : described.starts[c + 1]]
            views[c][:, filled[c] : filled[c] + len(rows)] = (vectors @ block[rows].T).numpy()
            filled[c] += len(rows)
    for view in views.values():
        view.sort(axis=1)
    return fits


def _best_two(logits: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    images = logits.shape[1]
    found = tuple(np.empty(images, kind) for kind in (np.float32, np.int64, np.float32, np.int64))
    best_two(logits, *found)
    return found


def _labelled(images: Iterable[Tensor], labels: ndarray) -> Iterator[tuple[Tensor, ndarray]]:
    """Blocks with their labels."""
    done = 0
    for block in images:
        yield block, labels[done : done + len(block)]
        done += len(block)


def _by_class(labels: ndarray) -> Iterator[tuple[int, ndarray]]:
    """The classes of a block's images, each with the places of these."""
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    yield from zip(classes.tolist(), np.split(order, starts[1:]), strict=True)


def _tasks(starts: ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of whole classes with about so many descriptors as a task has."""
    first, classes = 0, len(starts) - 1
    while first < classes:
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + _TASK, side="right")) - 1)
        yield first, end
        first = end
