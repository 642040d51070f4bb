"""The page of an explanation: the classes side by side, crops drawn in the colours of the bars that they speak in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.explain_table import best_descriptors, class_title, crop_name, meaning, not_shown
from pipeline.pages import COLOURS, Box, picture_with_boxes, render


def explanation_page(document: Mapping[str, Any], data: bytes | OSError, kind: str, most: int) -> str:
    """A page of `explain_image`'s document; `data` is the image's file, `kind` the method's name in the job file.

    Each class shows its `most` descriptors that add most to the logit, each with its mass as a bar. A crop has one
    colour on the whole page: the crops that are best for the descriptors shown have one, as far as colours go, and
    those alone are drawn. The rest of a bar is grey.
    """
    colours = _colours(document["classes"], most)
    shown = [each for told in document["classes"] for each in best_descriptors(told, most)]
    widest = max((each["mass"] for each in shown), default=0.0) or 1.0
    label = "" if document["label"] is None else f", labelled {document['label']}"
    return render(
        "explain.html.j2",
        title=f"{document['image']}: why {document['predicted']}",
        lead=f"{document['method']} says {document['predicted']}{label}",
        foot=f"{meaning(kind)}. Bars are as long as the mass, and have the colours of the crops that it came from.",
        columns=[_column(document, told, data, colours, widest, most) for told in document["classes"]],
    )


def _colours(classes: Sequence[Mapping[str, Any]], most: int) -> dict[int, str]:
    """Place of a crop -> its colour: by turns the crops that speak most for the descriptors of each class."""
    by_class = []
    for told in classes:
        weight: dict[int, float] = {}
        for each in best_descriptors(told, most):
            best = each["best"]
            weight[best["crop"]] = weight.get(best["crop"], 0.0) + best["contribution"]
        by_class.append(sorted(weight, key=lambda crop: -weight[crop]))
    turns = max(map(len, by_class), default=0)
    chosen = dict.fromkeys(crops[turn] for turn in range(turns) for crops in by_class if turn < len(crops))
    return dict(zip(chosen, COLOURS, strict=False))


def _column(
    document: Mapping[str, Any],
    told: Mapping[str, Any],
    data: bytes | OSError,
    colours: Mapping[int, str],
    widest: float,
    most: int,
) -> dict[str, Any]:
    crops = told["crops"]
    boxes = [
        Box(crops[place]["box"], str(crops[place]["number"]), f"{crop_name(crops[place])}", colour)
        for place, colour in colours.items()
        if crops[place]["box"] is not None
    ]
    legend = [
        {"name": crop_name(crops[place]), "colour": colour, "weight": f"{crops[place]['weight']:.3f}"}
        for place, colour in colours.items()
    ]
    return {
        "title": class_title(document, told),
        "picture": picture_with_boxes(data, boxes),
        "legend": legend,
        "lines": [_line(each, crops, colours, widest) for each in best_descriptors(told, most)],
        "more": not_shown(told, most),
    }


def _line(
    each: Mapping[str, Any], crops: Sequence[Mapping[str, Any]], colours: Mapping[int, str], widest: float
) -> dict[str, Any]:
    """A descriptor with its bar: a part for each crop that has a colour, one for all others."""
    best, others = each["best"], each["mass"] - sum(each["by_crop"][place] for place in colours)
    parts = [
        (colour, each["by_crop"][place], f"{crop_name(crops[place])}: mass {each['by_crop'][place]:.3f}")
        for place, colour in colours.items()
    ]
    parts.append(("", max(0.0, others), f"other crops: mass {max(0.0, others):.3f}"))
    name = crop_name(crops[best["crop"]])
    figures = f"mass {each['mass']:.3f}, adds {each['contribution']:.2f}; best {name}, cosine {best['cosine']:.3f}"
    return {
        "text": each["text"],
        "spoken": f"mass {each['mass']:.3f}",
        "parts": [
            {"colour": colour, "width": f"{100 * mass / widest:.2f}", "title": title}
            for colour, mass, title in parts
            if mass > 0
        ],
        "figures": figures,
    }
