"""The table of an explanation that people read in a terminal: a block a class, a line a description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def crop_name(crop: Mapping[str, Any]) -> str:
    """What a crop is called: `crop 3`, `feature 3`, `whole`; numbers are those of the view set."""
    kinds = {"raw": f"crop {crop['number']}", "feature": f"feature {crop['number']}", "whole": "whole image"}
    return kinds[crop["kind"]]


def class_title(document: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """A class with its logit and probability, and whether it is the predicted one or the label."""
    roles = {"predicted": told["class"] == document["predicted"], "label": told["class"] == document["label"]}
    role = ", ".join(name for name, true in roles.items() if true)
    figures = [f"logit {told['logit']:.2f}"]
    figures += [] if told["probability"] is None else [f"probability {told['probability']:.2f}"]
    return f"{told['class']}: {', '.join(figures)}" + (f" ({role})" if role else "")


def meaning(method: str) -> str:
    """What mass is, by the kind of method; a line under the title."""
    return {
        "abs": "mass: every crop has one vote, shared among the descriptors of all classes",
        "dnd": "mass: what the transport plan moves from crops to descriptors, 1 in each class",
    }.get(method, "mass: weight of the crop x weight of the descriptor, 1 in each class")


def show_explanation(console: Console, document: Mapping[str, Any], kind: str, most: int) -> None:
    """Of each class the `most` descriptors that add most: mass, part of the logit, best crop; `kind`: the method's."""
    label = "" if document["label"] is None else f", labelled {document['label']}"
    head = f"{document['image']}{label}; {document['method']} says {document['predicted']}"
    console.print(head, highlight=False, markup=False)
    console.print(f"{meaning(kind)}; adds: its part of the logit", highlight=False, markup=False, style="dim")
    for told in document["classes"]:
        console.print()
        console.print(class_title(document, told), highlight=False, markup=False, style="bold")
        console.print(_descriptors(told, most), highlight=False)
        for line in (not_shown(told, most), _boxes(told, most)):
            if line:
                console.print(line, highlight=False, markup=False, style="dim")


def _descriptors(told: Mapping[str, Any], most: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("descriptor", overflow="fold")
    for name in ("mass", "adds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best crop", no_wrap=True)
    for name in ("cosine", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in best_descriptors(told, most):
        best = each["best"]
        share = best["mass"] / each["mass"] if each["mass"] > 0 else 0.0
        table.add_row(
            escape(each["text"]),
            f"{each['mass']:.3f}",
            f"{each['contribution']:.2f}",
            crop_name(told["crops"][best["crop"]]),
            f"{best['cosine']:.3f}",
            f"{share:.0%}",
        )
    return table


def best_descriptors(told: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """A class's descriptors that add most to its logit, best first."""
    return sorted(told["descriptors"], key=lambda each: -each["contribution"])[:most]


def not_shown(told: Mapping[str, Any], most: int) -> str:
    """What the descriptors beyond the first `most` add, and the part of the logit that no crop speaks for."""
    further = sorted(told["descriptors"], key=lambda each: -each["contribution"])[most:]
    parts = [f"{len(further):,} more add {sum(each['contribution'] for each in further):.2f}"] if further else []
    parts += [f"the whole image's likeness to the name adds {told['rest']:.2f}"] if told["rest"] else []
    return "; ".join(parts)


def _boxes(told: Mapping[str, Any], most: int) -> str:
    """Where the crops lie that the lines name."""
    named = dict.fromkeys(each["best"]["crop"] for each in best_descriptors(told, most))
    crops = [told["crops"][number] for number in named]
    placed = [f"{crop_name(crop)} {tuple(crop['box'])}" for crop in crops if crop["box"] is not None]
    return f"boxes (x0, y0, x1, y1): {'; '.join(placed)}" if placed else ""
