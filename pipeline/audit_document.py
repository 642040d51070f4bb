"""The parts of an audit's document: what is told of every descriptor, class after class, and the totals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.audit_choice import Choice
from pipeline.explain_document import figure
from pipeline.job_error import JobError
from stages.audit_filter import Judged, Verdict, doubt, is_hallucinated

if TYPE_CHECKING:
    from stages.audit import Figures
    from stages.matching.descriptor_audit import Described

FIT = {True: "no better than chance", False: "above chance", None: "unknown"}
ALIKE = 0.99
"""Cosine of two descriptors of a class from which on one of them is redundant."""

Verdicts = Mapping[tuple[str, str], Sequence[Verdict]]
"""By class and descriptor what a person said of it: several where it stands there several times, in their order."""


def align_verdicts(verdicts: Verdicts, descriptors: Mapping[str, Sequence[str]]) -> list[list[Verdict]]:
    """What a person said of each descriptor of each class: of a text that stands there twice, one after the other.

    Raises JobError for a verdict on something else, and where verdicts drop all of a class.
    """
    for (name, text), said in verdicts.items():
        if any(said) and text not in descriptors.get(name, ()):
            raise JobError(
                f"--verdicts: class {name!r} has no descriptor {text!r} among those that are judged; "
                "say with --descriptors which set the sheet is of"
            )
    left = {key: list(said) for key, said in verdicts.items()}
    found: list[list[Verdict]] = []
    for name, texts in descriptors.items():
        found.append([said.pop(0) if (said := left.get((name, text))) else "" for text in texts])
        if all(verdict == "drop" for verdict in found[-1]):
            raise JobError(f"--verdicts: all {len(texts)} descriptors of class {name!r} are dropped; keep one")
    for (name, text), said in left.items():
        if any(said):
            raise JobError(
                f"--verdicts: {text!r} of class {name!r} has more lines than the class has it; keep one of them"
            )
    return found


def tell_classes(
    choice: Choice, figures: Figures, described: Described, judged: Sequence[Sequence[Judged]], kept: Sequence[bool]
) -> list[dict[str, Any]]:
    """Every class with its descriptors, as `audit_job` says."""
    best = _best_crops(choice, figures)
    elsewhere, found = choice.texts.elsewhere(), []
    for number, (name, texts) in enumerate(choice.texts.descriptors.items()):
        start, rows = int(described.starts[number]), []
        for place, (text, one) in enumerate(zip(texts, judged[number], strict=True), start=start):
            nearest = _nearest(figures, place, start, texts)
            row = {"text": text, **_tell_figures(one, place, figures, number, only=len(texts) == 1)}
            row["best"] = best.get(place, [])
            row["nearest"] = nearest
            row["redundant"] = nearest is not None and nearest["cosine"] >= ALIKE
            row["elsewhere"] = [other for other in elsewhere.get(text, ()) if other != name]
            row |= {"verdict": one.verdict, "doubt": doubt(one), "dropped": not kept[place]}
            rows.append(row)
        cropped = None if figures.chosen is None else int(figures.chosen.read[number])
        images = int(figures.fit.images[number])
        head = {"class": name, "source": choice.sources[name], "images": images, "cropped": cropped}
        found.append(head | {"descriptors": rows})
    return found


def _tell_figures(one: Judged, place: int, figures: Figures, number: int, *, only: bool) -> dict[str, Any]:
    """The figures of one descriptor, by its place among all and the number of its class."""
    fit, chosen = figures.fit, figures.chosen
    images = 0 if chosen is None else int(chosen.read[number])
    return {
        "auc": _known(one.auc),
        "p": _known(one.p),
        "fit": FIT[is_hallucinated(one.p)],
        "gained": None if only else int(fit.gained[place]),
        "lost": None if only else int(fit.lost[place]),
        "crops": figure(chosen.crops[place] / (images * chosen.each)) if images else None,
        "images": figure(chosen.images[place] / images) if images else None,
    }


def _nearest(figures: Figures, place: int, start: int, texts: Sequence[str]) -> dict[str, Any] | None:
    other = int(figures.nearest[place])
    return None if other < 0 else {"text": texts[other - start], "cosine": figure(figures.likeness[place])}


def _best_crops(choice: Choice, figures: Figures) -> dict[int, list[dict[str, Any]]]:
    """Place of a descriptor -> the crops that are most like it and chose it, with their boxes."""
    import numpy as np

    if figures.chosen is None:
        return {}
    from stages.audit import read_boxes

    chosen = figures.chosen
    places, ranks = np.nonzero(chosen.best_images >= 0)
    images = figures.cropped.take(chosen.best_images[places, ranks])
    numbers = chosen.best_crops[places, ranks].tolist()
    boxes = read_boxes(choice.view, images["key"].to_pylist(), numbers)
    cosines, ids = chosen.best_cosines[places, ranks], images["id"].to_pylist()
    found: dict[int, list[dict[str, Any]]] = {}
    for place, identity, number, box, cosine in zip(places.tolist(), ids, numbers, boxes, cosines, strict=True):
        crop = {"image": identity, "number": number, "box": box, "cosine": figure(cosine)}
        found.setdefault(place, []).append(crop)
    return found


def count_totals(told: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """How many descriptors there are of each kind."""
    rows = [each for one in told for each in one["descriptors"]]
    fits = [each["fit"] for each in rows]
    looked_at = [each for each in rows if each["crops"] is not None]
    return {
        "classes": len(told),
        "descriptors": len(rows),
        "above_chance": fits.count(FIT[False]),
        "hallucinated": fits.count(FIT[True]),
        "unknown": fits.count(FIT[None]),
        "redundant": sum(each["redundant"] for each in rows),
        "never_chosen": sum(each["crops"] == 0 for each in looked_at) if looked_at else None,
        "costly": sum((each["gained"] or 0) > (each["lost"] or 0) for each in rows),
        "doubtful": sum(each["doubt"] is not None for each in rows),
        "dropped": sum(each["dropped"] for each in rows),
        "dropped_by_verdict": sum(each["verdict"] == "drop" for each in rows),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else figure(value)
