"""What the caches of a stream hold at every step, settled from the logits before the first vote (algorithms.md 10).

Nothing that enters a cache depends on adapted logits. So entropies, predictions and masks are computed in batches, the
replacements are bookkeeping of whole numbers, and what is left for the replay is products of matrices, a block of
samples at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .compiled_stream import add_votes, assign_slots

# Numbers of logits that are read at a time: 8 MB.
_BLOCK_ELEMENTS = 2**21


@dataclass(frozen=True)
class StreamSettings:
    """Two caches of what was seen; the defaults are TDA's one fixed setting (algorithms.md 10).

    A capacity is in items a predicted class; 0 leaves that cache out. `entropy_bounds` are of entropy in nats / log2 C,
    which at most is ln 2; `mask_bounds` are of probabilities: an item of the negative cache counts against the classes
    whose probability lay between them. All bounds are left out. `exclude_self`: a sample does not vote for itself.
    """

    positive_alpha: float = 2.0
    positive_beta: float = 5.0
    positive_capacity: int = 3
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    negative_capacity: int = 2
    entropy_bounds: tuple[float, float] = (0.2, 0.5)
    mask_bounds: tuple[float, float] = (0.03, 1.0)
    exclude_self: bool = False


@dataclass(frozen=True)
class Decisions:
    """What the logits say of each sample, in the stream's order: `predicted` int64 [T], and for each cache the `slots`
    int64 [T] that samples take (-1: not kept) and the classes that they then speak for."""

    predicted: np.ndarray
    caches: list[Held]


@dataclass(frozen=True)
class Held:
    """One cache: votes are alpha x exp(-beta (1 - affinity)), alpha < 0 for the negative one. The sample of step t
    takes `slots[t]`, -1: none, and speaks for classes[starts[t]:stops[t]]."""

    alpha: float
    beta: float
    slots: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    classes: np.ndarray


def decide(
    logits: Tensor,
    order: Tensor,
    settings: StreamSettings,
    *,
    entropies: Tensor | None = None,
    probabilities: Tensor | None = None,
) -> Decisions:
    """Who enters the caches, and what for; arguments as `stream.iter_stream`, and its errors."""
    _check(logits, order, entropies, probabilities)
    found, predicted = _read(logits, entropies)
    found, predicted = found[order], predicted[order]
    # A class alone has no entropy, and no bits to divide it by.
    share = found / math.log2(logits.shape[1]) if logits.shape[1] > 1 else found
    lower, upper = settings.entropy_bounds
    unsure = (lower < share) & (share < upper)
    caches = []
    if settings.positive_capacity:
        slots = _assign(found, predicted, torch.ones_like(unsure), logits.shape[1], settings.positive_capacity)
        steps = np.arange(len(slots))
        own = (steps, steps + 1, predicted.numpy())
        caches.append(Held(settings.positive_alpha, settings.positive_beta, slots, *own))
    if settings.negative_capacity:
        slots = _assign(found, predicted, unsure, logits.shape[1], settings.negative_capacity)
        masks = _masks(logits, probabilities, order, slots, settings.mask_bounds)
        caches.append(Held(-settings.negative_alpha, settings.negative_beta, slots, *masks))
    return Decisions(predicted.numpy(), caches)


def _check(logits: Tensor, order: Tensor, entropies: Tensor | None, probabilities: Tensor | None) -> None:
    count = len(logits)
    if order.shape != (count,) or not torch.equal(order.sort().values.cpu(), torch.arange(count)):
        raise ValueError(f"order {list(order.shape)} is no permutation of the {count} samples; each comes exactly once")
    for name, given in (("entropies", entropies), ("probabilities", probabilities)):
        shape = logits.shape if name == "probabilities" else logits.shape[:1]
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} are {list(given.shape)}; logits {list(logits.shape)} need {list(shape)}")


def _read(logits: Tensor, entropies: Tensor | None) -> tuple[Tensor, Tensor]:
    """Entropies float32 [T] in nats and predicted classes int64 [T], of samples as they lie."""
    count, classes = logits.shape
    found, predicted = torch.empty(count), torch.empty(count, dtype=torch.int64)
    step = max(1, _BLOCK_ELEMENTS // max(1, classes))
    for start in range(0, count, step):
        some = slice(start, start + step)
        block = logits[some].cpu().float()
        found[some] = entropy(block) if entropies is None else entropies[some].cpu().float()
        predicted[some] = block.argmax(dim=1)
        if not (block.isfinite().all() and found[some].isfinite().all()):
            wrong = ~(block.isfinite().all(dim=1) & found[some].isfinite())
            raise ValueError(f"sample {start + int(wrong.nonzero()[0])} has logits or an entropy that are not finite")
    return found, predicted


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: [..., C] -> [...]."""
    log_probabilities = logits.log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


def _assign(entropies: Tensor, predicted: Tensor, candidates: Tensor, classes: int, capacity: int) -> np.ndarray:
    slots = np.empty(len(entropies), np.int64)
    order, counts = np.zeros((classes, capacity), np.int64), np.zeros(classes, np.int64)
    held = np.zeros((classes, capacity), np.float32)
    assign_slots(entropies.numpy(), predicted.numpy(), candidates.numpy(), held, order, counts, slots)
    return slots


def _masks(
    logits: Tensor, probabilities: Tensor | None, order: Tensor, slots: np.ndarray, bounds: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and stops [T] of the classes within the bounds, for samples that enter; and these, one after the other."""
    entering = torch.from_numpy((slots >= 0).nonzero()[0])
    counts = torch.zeros(len(slots), dtype=torch.int64)
    found = [counts[:0]]
    step = max(1, _BLOCK_ELEMENTS // max(1, logits.shape[1]))
    for steps in entering.split(step):
        samples = order[steps]
        share = logits[samples].cpu().float().softmax(dim=1) if probabilities is None else probabilities[samples].cpu()
        inside = (bounds[0] < share) & (share < bounds[1])
        counts[steps] = inside.sum(dim=1)
        found.append(inside.nonzero()[:, 1])
    stops = counts.cumsum(0)
    return (stops - counts).numpy(), stops.numpy(), torch.cat(found).numpy()


@dataclass(frozen=True)
class Columns:
    """The items that a block of samples may meet: those in the cache when it begins, in the order of their slots, and
    then those that enter in it. `steps` [I] are the items' own; each is there from row `first_rows` of the block until
    before `end_rows`; `entering` [E] are the rows of the block whose samples enter."""

    steps: np.ndarray
    first_rows: np.ndarray
    end_rows: np.ndarray
    entering: np.ndarray


class Replay:
    """A cache on its way through the stream, block by block: what lies in its slots, in memory for all it will use."""

    def __init__(self, held: Held, item: tuple[int, ...], exclude_self: bool):
        """`item`: the shape of what is kept of a sample."""
        self._held, self._delay = held, int(exclude_self)
        size = int(held.slots.max(initial=-1)) + 1
        self._vectors = np.zeros((size, *item), np.float32)
        self._steps = np.zeros(size, np.int64)
        self._used = 0

    @property
    def vectors(self) -> np.ndarray:
        """What lies in the slots in use, float32 [U, ...]."""
        return self._vectors[: self._used]

    def columns(self, start: int, stop: int) -> Columns:
        """The items of the block of steps from `start` to `stop`."""
        slots = self._held.slots[start:stop]
        entering = (slots >= 0).nonzero()[0]
        steps = np.concatenate([self._steps[: self._used], start + entering])
        first_rows = np.concatenate([np.zeros(self._used, np.int64), entering + self._delay])
        end_rows = np.full(len(steps), stop - start)
        lying = {slot: slot for slot in range(self._used)}
        for column, (row, slot) in enumerate(zip(entering, slots[entering].tolist(), strict=True), self._used):
            if slot in lying:
                end_rows[lying[slot]] = row
            lying[slot] = column
        return Columns(steps, first_rows, end_rows, entering)

    def vote(
        self, columns: Columns, some: slice, affinities: np.ndarray, weights: np.ndarray, row: int, votes: np.ndarray
    ) -> None:
        """Add to `votes` [C, W] what some of the items say to the samples from number `row` of the block on, by their
        `affinities` [I x N, W] and `weights` [I, N]."""
        held, steps = self._held, columns.steps[some]
        rows = columns.first_rows[some], columns.end_rows[some]
        spoken = held.starts[steps], held.stops[steps], held.classes
        add_votes(affinities, weights, *rows, *spoken, held.alpha, held.beta, row, votes)

    def keep(self, columns: Columns, entered: np.ndarray) -> None:
        """Put what the block's samples left, `entered` [E, ...], in their slots; the last one into a slot stays."""
        steps = columns.steps[self._used :]
        last = {slot: number for number, slot in enumerate(self._held.slots[steps].tolist())}
        slots, numbers = list(last), list(last.values())
        self._vectors[slots] = entered[numbers]
        self._steps[slots] = steps[numbers]
        self._used = max([self._used, *(slot + 1 for slot in slots)])
