"""Measures the small CLIP on species it has never seen: `python -m demo.measure`.

Prints, in percent, what each way of looking and of matching gets right on the validation species and on the
reporting sets, whose mean and spread are over sets. Settings are to be chosen by the validation column.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.captions import descriptor
from demo.dataset import MODEL_FOLDER
from demo.marks import Species
from demo.render import FAR, render
from demo.species import REPORTING, SETS, SIBLINGS, VALIDATION, species_of
from stages.matching.pooling import mean_cosine, mean_crop, mean_text
from stages.matching.sinkhorn import emd_scores
from stages.matching.soft import soft_match
from stages.methods.abs import Abs
from stages.statistics import calibration_error
from stages.vision.boxes import feature_windows, guided_boxes, image_rng, random_boxes
from stages.vision.crops import image_tensor, normalize, preprocess_whole, resize_crops
from stages.vision.towers import Tower, load_tower

EPSILONS = (0.1, 0.05, 0.02, 0.01)
TEMPERATURES = (0.01, 0.03, 0.1, 0.2)
ABS_TEMPERATURE = 0.03
CONFIDENCES = np.geomspace(0.001, 1, 61)
BATCH = 256
WHOLE, MEAN, MEANS = "whole image", "mean descriptor", "mean of similarities"


@dataclass(frozen=True)
class View:
    """Crops of one kind: `low` and `high` bound the area of random ones, the sides of guided ones."""

    crops: int
    low: float
    high: float
    guided: bool
    in_features: bool = False

    def __str__(self) -> str:
        where = "guided" if self.guided else "random"
        return f"{self.crops} {where} {self.low:g}-{self.high:g}{', raw and feature' if self.in_features else ''}"


VIEWS = (
    View(9, 0.10, 0.75, guided=False),
    View(9, 0.5, 0.9, guided=True),
    View(16, 0.3, 0.7, guided=True),
    View(16, 0.3, 0.7, guided=True, in_features=True),
    View(16, 0.2, 0.5, guided=True),
)


@dataclass(frozen=True)
class Exhibits:
    """The pictures of one set of species, their classes `[B]`, and the box `[B, 4]` of each bird in 0..1."""

    pictures: list[Tensor]
    labels: Tensor
    birds: np.ndarray


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.measure", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="folder of the model")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS, metavar="SET", help=" ".join(SETS))
    parser.add_argument("--per-class", type=int, default=10, help="pictures of each species")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    asked = parser.parse_args()
    tower = load_tower(f"local-dir:{asked.model}", None, precision="bf16")
    found = {}
    for set_name in asked.sets:
        measured = list(measure_set(tower, set_name, asked.per_class, asked.workers))
        found[set_name] = {(where, how): percent for where, how, percent in measured}
        print(f"measured {set_name}", flush=True)
    if VALIDATION in found:
        print(f"\nValidation species, {asked.per_class} pictures each\n\n{table([found[VALIDATION]])}")
    reporting = [found[name] for name in asked.sets if name in REPORTING]
    if reporting:
        print(f"\n{len(reporting)} reporting sets, mean and standard deviation over sets\n\n{table(reporting)}")


@torch.no_grad()
def measure_set(tower: Tower, set_name: str, per_class: int, workers: int) -> Iterator[tuple[str, str, float]]:
    """Where the model looked, how that was matched, and the percentage of `per_class` pictures of each species
    of a set that came out right. Facts that are no accuracy come in the same form."""
    species = species_of(set_name)
    exhibits = _exhibit(species, set_name, per_class, workers)
    sentences = [descriptor(mark) for its in species for mark in its.marks]
    texts = F.normalize(tower.encode_texts(sentences), dim=-1).view(len(species), len(species[0].marks), -1)
    mask = torch.ones(texts.shape[:2], dtype=torch.bool)
    names = F.normalize(tower.encode_texts([f"a photo of a {its.name}." for its in species]), dim=-1)
    whole, tokens, maps = _look(tower, exhibits.pictures)
    describe = mean_text(texts, mask)

    def right(logits: Tensor, together: int = 1) -> float:
        return 100 * (logits.argmax(1) // together == exhibits.labels // together).float().mean().item()

    yield "attention of CLS", "on the bird", 100 * _mass_on_bird(maps, exhibits.birds)
    yield (
        "box of the bird",
        "of the picture",
        100 * float(np.prod(np.diff(exhibits.birds.reshape(-1, 2, 2), axis=1), -1).mean()),
    )
    yield WHOLE, "names", right(whole @ names.T)
    yield WHOLE, "genus, by mean descriptor", right(whole @ describe.T, SIBLINGS)
    yield WHOLE, MEAN, right(whole @ describe.T)
    yield WHOLE, MEANS, right(mean_cosine(whole[:, None], texts, mask))
    for view in VIEWS:
        crops = _crop(tower, exhibits.pictures, view, tokens, maps)
        yield str(view), MEAN, right(mean_crop(crops) @ describe.T)
        yield str(view), MEANS, right(mean_cosine(crops, texts, mask))
        best = torch.stack([(crops @ its.T).amax(1).mean(1) for its in texts], 1)
        yield str(view), "best crop", right(best)
        for epsilon in EPSILONS:
            yield str(view), f"EMD {epsilon:g}", right(emd_scores(crops, texts, mask, epsilon=epsilon))
        for heat in TEMPERATURES:
            matched = soft_match(crops, texts, mask, temperature=heat)
            yield str(view), f"soft {heat:g}", right(matched)
            if heat == ABS_TEMPERATURE:
                yield from _calibration(str(view), matched / crops.shape[1], exhibits.labels)


def _calibration(view: str, logits: Tensor, labels: Tensor) -> Iterator[tuple[str, str, float]]:
    """The temperature of softmax(`logits` [B, C] / temperature) that makes the `labels` [B] likeliest, in .001..1
    (Guo et al. 2017, arXiv 1706.04599), and the calibration error in percent without and with the default of `abs`."""

    def loss(heat: float) -> float:
        return F.cross_entropy(logits / float(heat), labels).item()

    def error(heat: float) -> float:
        sure, chosen = torch.softmax(logits / heat, dim=1).max(dim=1)
        return 100 * calibration_error(sure.numpy(), (chosen == labels).numpy(), bins=15)

    default = Abs.model_fields["confidence_temperature"].default
    yield f"{view}, soft 0.03", "best confidence temperature", float(min(CONFIDENCES, key=loss))
    yield f"{view}, soft 0.03", "calibration error at temperature 1", error(1.0)
    yield f"{view}, soft 0.03", f"calibration error at {default:g}, the default of abs", error(default)


def table(sets: list[dict[tuple[str, str], float]]) -> str:
    """Markdown: where by how for all that was tried on every view, and a line for each other fact; a cell is
    the mean over `sets`, with its standard deviation where there are several."""

    def cell(key: tuple[str, str]) -> str:
        values = [percents[key] for percents in sets if key in percents]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.1f}{spread}" if values else ""

    keys = list(sets[0])
    hows = [how for where, how in keys if where == str(VIEWS[0])]
    rows = [WHOLE, *map(str, VIEWS)]
    facts = [f"- {where}, {how}: {cell((where, how))}" for where, how in keys if how not in hows]
    lines = [f"| | {' | '.join(hows)} |", f"|---|{'---:|' * len(hows)}"]
    lines += [f"| {where} | {' | '.join(cell((where, how)) for how in hows)} |" for where in rows]
    return "\n".join([*facts, "", *lines])


def _exhibit(species: tuple[Species, ...], set_name: str, per_class: int, workers: int) -> Exhibits:
    jobs = [(its, f"measure {set_name} {number}") for its in species for number in range(per_class)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        shown = pool.map(_picture, jobs, chunksize=8)
    labels = torch.arange(len(species)).repeat_interleave(per_class)
    return Exhibits([image_tensor(pixels) for pixels, _ in shown], labels, np.stack([bird for _, bird in shown]))


def _picture(job: tuple[Species, str]) -> tuple[np.ndarray, np.ndarray]:
    picture, boxes = render(*job, width=FAR)
    corners = np.array(list(boxes.values()))
    return np.asarray(picture), np.concatenate([corners[:, :2].min(0), corners[:, 2:].max(0)])


def _look(tower: Tower, pictures: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Features `[B, d]`, tokens before the last block `[B, 1 + P, D]`, attention maps `[B, G, G]`."""
    found = []
    for start in range(0, len(pictures), BATCH):
        some = pictures[start : start + BATCH]
        pixels = torch.stack([preprocess_whole(picture, tower.image_size) for picture in some])
        tokens = tower.cropper.tokens(normalize(pixels, tower.mean, tower.std))
        features = F.normalize(tower.cropper.features(tokens), dim=-1)
        found.append((features, tokens, tower.cropper.attention(tokens)))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _crop(tower: Tower, pictures: list[Tensor], view: View, tokens: Tensor, maps: Tensor) -> Tensor:
    """Unit features `[B, N, d]` of a view's crops; raw ones first where there are both."""
    rows = []
    for start in range(0, len(pictures), BATCH // view.crops):
        some = range(start, min(start + BATCH // view.crops, len(pictures)))
        boxes = [_boxes(view, pictures[number], maps[number].numpy(), number) for number in some]
        cut = [resize_crops(pictures[n], drawn, tower.image_size) for n, (drawn, _) in zip(some, boxes, strict=True)]
        raw = tower.encode_images(normalize(torch.cat(cut), tower.mean, tower.std))
        found = [raw.view(len(some), view.crops, -1)]
        if view.in_features:
            windows = torch.from_numpy(np.stack([windows for _, windows in boxes]))
            found.append(tower.cropper.crop_features(tokens[some.start : some.stop], windows))
        rows.append(F.normalize(torch.cat(found, 1), dim=-1))
    return torch.cat(rows)


def _boxes(view: View, picture: Tensor, attention: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Boxes in pixels `[N, 4]`, and for views with feature crops windows of tokens `[N, 4]`."""
    height, width = picture.shape[1:]
    rng = image_rng(0, str(number), str(view))
    if not view.guided:
        area = {"min_area": view.low, "max_area": view.high}
        return random_boxes(width, height, crops=view.crops, **area, rng=rng), None
    side = {"min_side": view.low, "max_side": view.high}
    drawn = {"crops": view.crops, **side, "top_k": 20, "temperature": 0.03}
    boxes, cells = guided_boxes(attention, width, height, **drawn, rng=rng)
    if not view.in_features:
        return boxes, None
    grid = len(attention)
    frame = {"guide_grid": grid, "grid": grid, "width": width, "height": height, "frame": "corrected"}
    return boxes, feature_windows(cells, **frame, **side, rng=rng)


def _mass_on_bird(maps: Tensor, birds: np.ndarray) -> float:
    """The mean share of a map's mass that lies in cells whose middle is in the bird's box."""
    middle = (np.arange(maps.shape[-1]) + 0.5) / maps.shape[-1]
    left, top, right, bottom = (birds[:, edge, None] for edge in range(4))
    across, down = (middle > left) & (middle < right), (middle > top) & (middle < bottom)
    inside = torch.from_numpy(down[:, :, None] & across[:, None, :])
    return ((maps * inside).sum((1, 2)) / maps.sum((1, 2))).mean().item()


if __name__ == "__main__":
    main()
