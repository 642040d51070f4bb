"""The parts of an explanation's document: how classes rank, where crops lie, what pairs make of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.settings import ModelSettings

if TYPE_CHECKING:
    from torch import Tensor

    from stages.methods.explaining import Spoken
    from stages.predictions import Reading


def rank_classes(reading: Reading, scaled: Tensor) -> tuple[list[str], dict[str, float]]:
    """The classes that may be predicted, best first, and their probabilities."""
    place = {name: number for number, name in enumerate(reading.prompts)}
    shares = scaled[[place[name] for name in reading.classes]].softmax(dim=0)
    order = shares.sort(descending=True, stable=True).indices.tolist()
    found = {name: figure(share) for name, share in zip(reading.classes, shares, strict=True)}
    return [reading.classes[number] for number in order], found


def place_crops(
    model: ModelSettings, reading: Reading, key: str, spoken: Spoken
) -> tuple[list[dict[str, Any]], list[str]]:
    """Kind, number and box of each row that speaks, and what to say where boxes are not known."""
    from stages.vision.model_error import ModelError
    from storage.schemas import to_numpy
    from storage.shards import ShardTable

    size = ShardTable(reading.whole).read([key], ["width", "height"]).to_pylist()[0]
    kinds, notes = {kind for kind, _ in spoken.rows}, []
    places: dict[str, list[dict[str, Any]]] = {"whole": [{"box": [0, 0, size["width"], size["height"]]}]}
    if "raw" in kinds:
        boxes = to_numpy(ShardTable(reading.view).read([key], ["boxes"])["boxes"], (-1, 4))[0]
        places["raw"] = [{"box": box} for box in boxes.tolist()]
    if "feature" in kinds:
        windows = to_numpy(ShardTable(reading.view).read([key], ["windows"])["windows"], (-1, 4))[0]
        try:
            from stages.vision.token_frame import read_token_frame

            frame = read_token_frame(model.name, model.weights)
            boxes = frame.boxes(windows, size["width"], size["height"]).tolist()
        except ModelError as error:
            boxes = [None] * len(windows)
            notes.append(f"where feature crops lie is told in tokens alone: {error}")
        places["feature"] = [
            {"box": box, "window": window} for box, window in zip(boxes, windows.tolist(), strict=True)
        ]
    return [{"kind": kind, "number": number, **places[kind][number]} for kind, number in spoken.rows], notes


def tell_class(
    spoken: Spoken, place: int, crops: Sequence[dict[str, Any]], texts: Sequence[str], top: int
) -> dict[str, Any]:
    """Rest, crops, descriptors and best pairs of one class, whose padding is cut off."""
    mass, cosines, parts = (
        side[place, :, : len(texts)] for side in (spoken.mass, spoken.cosines, spoken.contributions)
    )

    def pair(crop: int, text: int) -> dict[str, Any]:
        figures = {"mass": mass, "cosine": cosines, "contribution": parts}
        return {"crop": crop, "descriptor": text} | {name: figure(of[crop, text]) for name, of in figures.items()}

    best = parts.flatten().sort(descending=True, stable=True).indices[:top].tolist()
    descriptors = [
        {
            "text": text,
            "mass": figure(mass[:, number].sum()),
            "contribution": figure(parts[:, number].sum()),
            "by_crop": [figure(share) for share in mass[:, number]],
            "best": pair(int(parts[:, number].argmax()), number),
        }
        for number, text in enumerate(texts)
    ]
    return {
        "rest": figure(spoken.rest[place]),
        "crops": [crop | {"weight": figure(mass[number].sum())} for number, crop in enumerate(crops)],
        "descriptors": descriptors,
        "pairs": [pair(*divmod(number, len(texts))) for number in best],
    }


def figure(value: Any) -> float:
    """Six digits: what float32 holds."""
    return float(f"{float(value):.6g}")
