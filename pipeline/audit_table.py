"""The table of an audit that people read in a terminal: each class's best and worst descriptors, then the totals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.results import ALPHA

CLASSES = 20
"""Classes that are shown; the sheet has all."""


def show_audit(console: Console, document: Mapping[str, Any], most: int) -> None:
    """Of each class the `most` descriptors of the highest AUC and as many of the lowest, then what `sum_up` says."""
    for line in lead(document):
        console.print(line, highlight=False, markup=False, style="dim", soft_wrap=True)
    shown = worst_first(document)[:CLASSES]
    for told in shown:
        console.print()
        console.print(class_title(told), highlight=False, markup=False, style="bold")
        console.print(_descriptors(told, most), highlight=False)
        if hidden := len(told["descriptors"]) - len(best_and_worst(told, most)):
            console.print(f"{hidden:,} more between these", style="dim", highlight=False)
    console.print()
    if further := len(document["classes"]) - len(shown):
        console.print(f"{further:,} more classes: --csv, --html or --json has them", highlight=False)
    for line in sum_up(document):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def lead(document: Mapping[str, Any]) -> list[str]:
    """What was judged on what, and what the columns mean."""
    judged, crops = document["judged_on"], "without crops"
    if document["views"] is not None:
        crops = f"crops of {document['views']}, seed {document['seed']}"
    return [
        f"descriptors {document['descriptors']} as {document['method']} says them, judged on {judged['what']}: "
        f"{judged['images']:,} images, {crops}",
        "auc: how well it tells its class from the others; without: images right and wrong only without it; crops: "
        "share of the class's crops that are most like it; nearest: cosine with another of its class",
    ]


def worst_first(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The classes, those first of which the filter drops most."""

    def dropped(told: Mapping[str, Any]) -> int:
        return sum(each["dropped"] for each in told["descriptors"])

    return sorted(document["classes"], key=dropped, reverse=True)


def best_and_worst(told: Mapping[str, Any], most: int) -> list[Mapping[str, Any]]:
    """The `most` descriptors of a class with the highest AUC and as many with the lowest, best first."""
    ranked = sorted(told["descriptors"], key=lambda each: -1.0 if each["auc"] is None else -each["auc"])
    return ranked if len(ranked) <= 2 * most else [*ranked[:most], *ranked[-most:]]


def class_title(told: Mapping[str, Any]) -> str:
    """A class with its number of images and of descriptors."""
    images = f"{told['images']:,} image{'s' * (told['images'] != 1)}"
    return f"{told['class']}: {images}, {len(told['descriptors']):,} descriptors"


def marks(each: Mapping[str, Any]) -> str:
    """What is to be said of a descriptor in words."""
    said = [] if each["doubt"] is None else [each["doubt"]]
    said += [f"verdict: {each['verdict']}"] if each["verdict"] else []
    said = ["dropped", *said] if each["dropped"] else said
    said += ["redundant"] if each["redundant"] else []
    said += [f"also of {', '.join(each['elsewhere'][:3])}"] if each["elsewhere"] else []
    return "; ".join(said)


def shown_figures(each: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """AUC, images without it, share of crops and nearest, as they are shown."""
    removed = "" if each["gained"] is None else f"+{each['gained']} -{each['lost']}"
    nearest = "" if each["nearest"] is None else f"{each['nearest']['cosine']:.2f}"
    auc = "" if each["auc"] is None else f"{each['auc']:.3f}"
    return auc, removed, "" if each["crops"] is None else f"{each['crops']:.0%}", nearest


def sum_up(document: Mapping[str, Any]) -> list[str]:
    """The totals, and what the filter does to accuracy on other images, in sentences."""
    totals, level = document["totals"], document["level"]
    chosen = "" if totals["never_chosen"] is None else f"; {totals['never_chosen']:,} are chosen by no crop"
    unknown = f", {totals['unknown']:,} unknown (fewer than {document['fewest']} images)" if totals["unknown"] else ""
    first = (
        f"{totals['descriptors']:,} descriptors of {totals['classes']:,} classes: {totals['above_chance']:,} fit their "
        f"class above chance (one-sided, level {level:g}), {totals['hallucinated']:,} do not{unknown}"
    )
    second = (
        f"{totals['costly']:,} cost more images than they win; {totals['redundant']:,} nearly repeat another of their "
        f"class{chosen}"
    )
    dropped, effect = totals["dropped"], document["effect"]
    judged = document["judged_on"]
    if totals["dropped_by_verdict"]:
        third = (
            f"verdicts drop {totals['dropped_by_verdict']:,}, and of {totals['doubtful']:,} doubtful ones the filter "
            f"{dropped - totals['dropped_by_verdict']:,} more: of the images of {judged['what']} "
            f"{100 * judged['filtered']:.1f}% are right instead of {100 * judged['accuracy']:.1f}%"
        )
        return [first, second, third, _tell_effect(document, dropped, effect)]
    if not dropped:
        why = f"; without the worst of them no more images of {judged['what']} are right" if totals["doubtful"] else ""
        return [first, second, f"{totals['doubtful']:,} are doubtful, the filter drops none{why}"]
    third = (
        f"{totals['doubtful']:,} are doubtful; of those, the worst first, the filter drops as many as leave the most "
        f"images of {judged['what']} right: {100 * judged['filtered']:.1f}% instead of {100 * judged['accuracy']:.1f}%"
    )
    return [first, second, third, _tell_effect(document, dropped, effect)]


def _tell_effect(document: Mapping[str, Any], dropped: int, effect: Mapping[str, Any] | None) -> str:
    if effect is None:
        return f"dropped are {dropped:,}; what that does to accuracy is not measured"
    points = [100 * effect[name] for name in ("difference", "low", "high")]
    told_apart = effect["p"] < ALPHA
    verdict = {True: "it helps", False: "it hurts"}[points[0] > 0] if told_apart else "these images do not tell"
    return (
        f"dropped are {dropped:,}: {100 * effect['filtered']:.1f}% right instead of "
        f"{100 * effect['accuracy']:.1f}% by the mean of cosines on {document['measured_on']['what']}, "
        f"{effect['images']:,} images that it was not chosen on, "
        f"{points[0]:+.1f} points ({points[1]:+.1f} to {points[2]:+.1f}), p = {effect['p']:.3g}: {verdict}"
    )


def _descriptors(told: Mapping[str, Any], most: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("descriptor", overflow="fold")
    for name in ("auc", "without", "crops", "nearest"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for each in best_and_worst(told, most):
        table.add_row(escape(each["text"]), *shown_figures(each), escape(marks(each)))
    return table
