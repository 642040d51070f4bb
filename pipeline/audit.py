"""Audit: which descriptors of a job help and which hurt, from stored features, as a document; and the filter's effect.

The document is what `--json` prints; the table, the page and the sheet show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.audit_choice import Choice, choose_audit
from pipeline.audit_document import Verdicts, align_verdicts, count_totals, tell_classes
from pipeline.prepared import Prepared
from stages.audit_filter import FEWEST, LEVEL
from stages.audit_images import Part

if TYPE_CHECKING:
    from numpy import ndarray

    from stages.matching.descriptor_audit import Described


@dataclass(frozen=True)
class Audit:
    """What `audit_job` found."""

    document: dict[str, Any]
    filtered: dict[str, list[str]]
    """the set's descriptors by class, without those that the filter drops"""
    notes: tuple[str, ...]
    """what a person should know of it"""


def audit_job(
    chosen: Prepared,
    *,
    descriptors: str | None = None,
    method: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    verdicts: Verdicts | None = None,
) -> Audit:
    """Judge every descriptor of a set by stored features of labelled images, filter, and measure that on other images.

    The document has:

    - descriptors (the set), `form`, method, views, seed, level, `fewest` (images below which chance is not judged);
    - `judged_on`: what, images, and the accuracy there of the mean of cosines, of all descriptors and `filtered`;
      `measured_on`: what and images, or null;
    - totals: counts of classes and descriptors, and of the latter those above chance, hallucinated, unknown, redundant,
      never_chosen (null without crops), costly (removal gains images), doubtful and dropped;
    - effect: `accuracy` with all descriptors, `filtered` without the dropped ones, their `difference` with its paired
      bootstrap interval (low, high, confidence), McNemar's p, n10, n01 and images; null where it is not measured;
    - classes: class, source, images, `cropped` images, and of each descriptor: text, auc, p, fit, `gained` and `lost`
      images without it (null for a class's only one), the share of the class's `crops` that are most like it and of its
      `images` with such a crop (null without crops), the `best` of these (image, number, box, cosine), `nearest` of its
      class (text and cosine), redundant, `elsewhere` (other classes with this text), verdict, `doubt` (what
      speaks against it, or null), and whether it is dropped.

    Raises JobError for a call that cannot be meant, NotComputed before texts and images are encoded.
    """
    plan = chosen.plan
    choice = choose_audit(chosen.job, plan, descriptors=descriptors, method=method, split=split, seed=seed)
    said = align_verdicts(verdicts or {}, choice.texts.descriptors)
    from stages.audit import describe_classes, filter_descriptors, gather_judged, judge_descriptors

    texts, images, folder = choice.texts, choice.judged.images, choice.whole.keeper.folder
    described, classes = describe_classes(texts.prompts, choice.encoded.keeper.folder), list(texts.descriptors)
    figures = judge_descriptors(described, classes, images, folder, choice.view)
    judged = gather_judged(figures, described, said)
    kept, accuracy = filter_descriptors(described, judged, classes, images, folder)
    told = tell_classes(choice, figures, described, judged, kept.tolist())
    document = {
        "descriptors": choice.descriptors,
        "form": chosen.job.descriptors[choice.descriptors].form,
        "method": choice.method.row_name,
        "views": choice.view_name,
        "seed": choice.seed,
        "level": LEVEL,
        "fewest": FEWEST,
        "judged_on": {
            "what": choice.judged.what,
            "images": len(images),
            "accuracy": figures.fit.right / len(images),
            "filtered": accuracy,
        },
        "measured_on": _tell_part(choice.measured),
        "totals": count_totals(told),
        "effect": _measure(chosen, choice, described, kept),
        "classes": told,
    }
    return Audit(document, _filtered(choice, told), choice.notes)


def _tell_part(part: Part | None) -> dict[str, Any] | None:
    return None if part is None else {"what": part.what, "images": len(part.images)}


def _measure(chosen: Prepared, choice: Choice, described: Described, kept: ndarray) -> dict[str, Any] | None:
    """What the filter does to accuracy on the images that it was not chosen on."""
    import numpy as np

    from stages.audit import count_right
    from stages.comparisons import Right, compare_methods

    if choice.measured is None:
        return None
    images, folder = choice.measured.images, choice.whole.keeper.folder
    both = count_right(described, [np.ones_like(kept), kept], list(choice.texts.descriptors), images, folder)
    every, fewer = both.astype(np.int64)
    (compared,) = compare_methods({"filtered": Right(fewer, 1), "all": Right(every, 1)}, chosen.job.evaluate)
    names = ("difference", "low", "high", "confidence", "p", "n10", "n01", "images")
    accuracies = {"accuracy": float(every.mean()), "filtered": float(fewer.mean())}
    return accuracies | {name: compared[name] for name in names}


def _filtered(choice: Choice, told: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The whole set without what is dropped: classes that were not judged stay.

    Of a class that loses a descriptor those that the method does not read go as well: they would come up in its place,
    and nobody judged them.
    """
    left = dict(choice.whole_set)
    for one in told:
        if any(each["dropped"] for each in one["descriptors"]):
            left[one["class"]] = [each["text"] for each in one["descriptors"] if not each["dropped"]]
    return left
