"""Stored features of labelled images, and of texts, on their way to what judges descriptors; a few images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from stages.audit_filter import FEWEST, Judged, Verdict, rank_doubtful, steps
from stages.stage import Table
from storage.shards import ShardTable

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    from stages.matching.descriptor_audit import Chosen, Described, Fit

IMAGES_A_BLOCK = 512
CROPS_A_BLOCK = 2048
KEPT_CROPS = 3
"""Crops that are remembered of each descriptor: the most similar ones that chose it, of different images."""


@dataclass(frozen=True, eq=False)
class Figures:
    """What is found of S descriptors, class after class in the order of the prompts."""

    fit: Fit
    p: ndarray
    """how likely chance alone gives so high an AUC, [S]; nan where there are too few images to say"""
    nearest: ndarray
    """the other descriptor of its class that each is most like, int64 [S], -1 where it is the only one"""
    likeness: ndarray
    """their cosine, float32 [S]"""
    chosen: Chosen | None
    """None where no crops are stored"""
    cropped: pa.Table
    """rows of the images whose crops were looked at, by the numbers that `chosen` speaks of"""


def describe_classes(prompts: Mapping[str, Sequence[str]], texts: str) -> Described:
    """The encoded prompts of all classes, from the table of texts in this folder."""
    import numpy as np

    from stages.matching.descriptor_audit import Described
    from stages.predictions import load_texts

    loaded = load_texts(prompts, texts)
    counts = [len(said) for said in prompts.values()]
    return Described(loaded.vectors[loaded.mask], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def judge_descriptors(
    described: Described, classes: Sequence[str], images: pa.Table, whole: str, view: Table | None
) -> Figures:
    """Figures of every descriptor from stored features alone.

    `images` have `key` and `class`, one of `classes`, which are those of the descriptors; `whole` is the folder of the
    table with their global features, `view` the table of a view set, of which the images that it has are read. Global
    features are read twice and crops once; of an image are kept four bytes a descriptor of its class.
    """
    from stages.matching.descriptor_audit import chance_p, choose_descriptors, fit_descriptors, nearest_of_class

    labels = number_classes(images, classes)
    table = ShardTable(whole)
    fit = fit_descriptors(lambda: read_whole(table, images["key"]), labels, described)
    nearest, likeness = nearest_of_class(described)
    chosen, cropped = None, images.slice(0, 0)
    if view is not None:
        cropped = images.filter(pc.is_in(images["key"], value_set=view.keeper.keys()))
        if len(cropped):
            each = view.plan[0].crops
            crops = _read_rows(ShardTable(view.keeper.folder), cropped["key"], max(1, CROPS_A_BLOCK // each))
            cropped_labels = number_classes(cropped, classes)
            chosen = choose_descriptors(crops, cropped_labels, described, each=each, keep=KEPT_CROPS)
    own = fit.images[described.owners]
    p = chance_p(fit.auc, own, len(labels) - own, fewest=FEWEST)
    return Figures(fit, p, nearest, likeness, chosen, cropped)


def gather_judged(figures: Figures, described: Described, verdicts: Sequence[Sequence[Verdict]]) -> list[list[Judged]]:
    """What decides which descriptors may be dropped, of every class those of its descriptors."""
    gains = (figures.fit.gained - figures.fit.lost).tolist()
    rows = iter(zip(figures.fit.auc.tolist(), figures.p.tolist(), gains, strict=True))
    return [[Judged(*next(rows), verdict) for verdict in said] for said in verdicts]


def filter_descriptors(
    described: Described, judged: Sequence[Sequence[Judged]], classes: Sequence[str], images: pa.Table, whole: str
) -> tuple[ndarray, float]:
    """Which descriptors are kept, booleans [S], and the share of `images` that is right with those alone.

    Verdicts stand. Of the doubtful ones so many are dropped, the worst first, as leave the most images right; of equal
    numbers the fewest. ValueError where verdicts leave a class none.
    """
    import numpy as np

    kept = np.array([one.verdict != "drop" for descriptors in judged for one in descriptors])
    ranked = [described.starts[c] + place for c, place in rank_doubtful(judged)]
    tried = []
    for count in steps(len(ranked)):
        tried.append(kept.copy())
        tried[-1][ranked[:count]] = False
    right = count_right(described, tried, classes, images, whole).mean(axis=1)
    best = int(right.argmax())
    return tried[best], float(right[best])


def count_right(
    described: Described, kept: Sequence[ndarray], classes: Sequence[str], images: pa.Table, whole: str
) -> ndarray:
    """Whether images are right by the mean of cosines of the descriptors that are `kept`, each booleans [S].

    Booleans [len(kept), n]; one reading for all. Raises ValueError where a class keeps none.
    """
    import numpy as np

    from stages.matching.descriptor_audit import classify

    averages = [described.average(own) for own in kept]
    labels, done = number_classes(images, classes), 0
    right = np.zeros((len(kept), len(labels)), bool)
    for block in read_whole(ShardTable(whole), images["key"]):
        own = labels[done : done + len(block)]
        for row, average in zip(right, averages, strict=True):
            row[done : done + len(block)] = classify([block], average) == own
        done += len(block)
    return right


def number_classes(images: pa.Table, classes: Sequence[str]) -> ndarray:
    """The place of each image's class among `classes`, int64 [n]."""
    import numpy as np

    places = pc.index_in(images["class"], value_set=pa.array(list(classes), pa.string()))
    return places.to_numpy().astype(np.int64)


def read_boxes(view: Table, keys: Sequence[str], numbers: Sequence[int]) -> list[list[int]]:
    """The box of each crop, x0, y0, x1, y1 in pixels: of the image of this key the crop of this number."""
    from storage.schemas import to_numpy

    images = list(dict.fromkeys(keys))
    wanted: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        wanted.setdefault(key, []).append(place)
    found: list[list[int]] = [[]] * len(keys)
    for start in range(0, len(images), IMAGES_A_BLOCK):
        some = images[start : start + IMAGES_A_BLOCK]
        boxes = to_numpy(view.keeper.read(some, ["boxes"])["boxes"], (-1, 4))
        for key, own in zip(some, boxes, strict=True):
            for place in wanted[key]:
                found[place] = own[numbers[place]].tolist()
    return found


def read_whole(table: ShardTable, keys: pa.ChunkedArray) -> Iterator[Tensor]:
    """Global features of these images, blocks [B, d] of unit rows in float32."""
    for block in _read_rows(table, keys, IMAGES_A_BLOCK):
        yield block[:, 0].contiguous()


def _read_rows(table: ShardTable, keys: pa.ChunkedArray, at_once: int) -> Iterator[Tensor]:
    from stages.predictions import load_crops

    for start in range(0, len(keys), at_once):
        yield load_crops(table, keys.slice(start, at_once))
