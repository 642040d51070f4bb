"""Where to look: boxes in pixels and windows of tokens, drawn from one generator an image.

Only `Generator.random` is used, and turned into choices by the arithmetic below, so that a draw is the same
on every machine, in every batch and under every NumPy. All boxes are `x0, y0, x1, y1`, ends excluded, never
empty.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import numpy as np

Frame = Literal["corrected", "official", "squashed"]
ATTEMPTS = 10  # as torchvision's RandomResizedCrop before it falls back to a central box


def image_rng(seed: int, image_id: str, purpose: str) -> np.random.Generator:
    """The generator of one image for one purpose (the name of a view set, say): a counter-based Philox.

    Its key is a hash of the three arguments and nothing else, so neither workers nor batches nor their order
    matter (algorithms.md 0.4, item 8).
    """
    name = json.dumps([int(seed), image_id, purpose]).encode("ascii")
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.sha256(name).digest()[:16], "little")))


def random_boxes(
    width: int,
    height: int,
    *,
    crops: int,
    min_area: float,
    max_area: float,
    min_aspect: float = 3 / 4,
    max_aspect: float = 4 / 3,
    scale_mode: Literal["area", "side"] = "area",
    rng: np.random.Generator,
) -> np.ndarray:
    """Random boxes int32 `[N, 4]` as torchvision's RandomResizedCrop draws them (D&D; algorithms.md 7.1).

    `min_area`, `max_area`: uniform range, a fraction of the image's area, or of its side where
    `scale_mode="side"` (the area is then the square of the draw). Aspect ratio (width / height) is
    log-uniform. A box that does not fit is drawn again, ten times in all; then the largest central box
    whose aspect is within the range is taken.
    """
    _check_range("min_area", min_area, "max_area", max_area, 1.0)
    _check_range("min_aspect", min_aspect, "max_aspect", max_aspect, np.inf)
    if scale_mode not in ("area", "side"):
        raise ValueError(f"scale_mode is {scale_mode!r}; it must be 'area' or 'side'")
    size, shape, x, y = np.moveaxis(rng.random((crops, ATTEMPTS, 4)), -1, 0)
    fraction = min_area + (max_area - min_area) * size
    area = (fraction**2 if scale_mode == "side" else fraction) * (width * height)
    aspect = np.exp(np.log(min_aspect) + (np.log(max_aspect) - np.log(min_aspect)) * shape)
    w = np.maximum(np.rint(np.sqrt(area * aspect)), 1).astype(np.int64)
    h = np.maximum(np.rint(np.sqrt(area / aspect)), 1).astype(np.int64)
    x0, y0 = _draw_integer(x, 0, width - w), _draw_integer(y, 0, height - h)
    drawn = np.stack([x0, y0, x0 + w, y0 + h], axis=-1)
    fits = (w <= width) & (h <= height)
    first = drawn[np.arange(crops), fits.argmax(axis=1)]
    central = _central_box(width, height, min_aspect, max_aspect)
    return np.where(fits.any(axis=1)[:, None], first, central).astype(np.int32)


def draw_cells(
    saliency: np.ndarray, *, crops: int, top_k: int, temperature: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw cells int32 `[N, 2]` (row, column) of a saliency grid `[G, G]` (ABS; algorithms.md 8.1, items 5 and 6).

    The `top_k` largest cells (cells equal to the last of them are kept too, so an even map is drawn from
    evenly), by softmax(value / `temperature`), with replacement.
    """
    grid = np.asarray(saliency, dtype=np.float64)
    if grid.ndim != 2 or grid.shape[0] != grid.shape[1] or not np.isfinite(grid).all():
        raise ValueError(f"saliency must be a square grid of finite numbers, got shape {grid.shape}")
    if temperature <= 0 or top_k < 1:
        raise ValueError(f"temperature and top_k must be positive, got {temperature} and {top_k}")
    values = grid.ravel()
    threshold = np.sort(values)[-min(top_k, values.size)]
    kept = np.flatnonzero(values >= threshold)
    cumulative = np.cumsum(np.exp((values[kept] - values[kept].max()) / temperature))
    drawn = np.searchsorted(cumulative, rng.random(crops) * cumulative[-1], side="right")
    cells = kept[np.minimum(drawn, kept.size - 1)]  # a product rounded up to the last sum would fall off the end
    return np.stack(np.divmod(cells, grid.shape[0]), axis=-1).astype(np.int32)


def guided_boxes(
    saliency: np.ndarray,
    width: int,
    height: int,
    *,
    crops: int,
    min_side: float,
    max_side: float,
    top_k: int,
    temperature: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes int32 `[N, 4]` around salient cells, and those cells int32 `[N, 2]` (ABS; algorithms.md 8.1-8.2).

    `saliency [G, G]` covers the whole image. Width and height of a box are two independent uniform integers
    between `min_side` and `max_side` of the image's; a box is cut at the border, never shifted, and is at
    least one pixel.
    """
    _check_range("min_side", min_side, "max_side", max_side, 1.0)
    cells = draw_cells(saliency, crops=crops, top_k=top_k, temperature=temperature, rng=rng)
    sizes = rng.random((crops, 2))
    spans = []
    for extent, cell, draw in ((width, cells[:, 1], sizes[:, 0]), (height, cells[:, 0], sizes[:, 1])):
        centre = _cell_centres(cell, extent, len(saliency))
        half = _draw_integer(draw, int(min_side * extent), int(max_side * extent)) // 2
        low = np.maximum(centre - half, 0)
        spans.append((low, np.maximum(np.minimum(centre + half, extent), low + 1)))
    (x0, x1), (y0, y1) = spans
    return np.stack([x0, y0, x1, y1], axis=-1).astype(np.int32), cells


def square_boxes(
    width: int, height: int, *, crops: int, min_side: float, max_side: float, rng: np.random.Generator
) -> np.ndarray:
    """Square boxes int32 `[N, 4]` anywhere in the image (WCA; algorithms.md 6).

    The side is int(u * shorter side of the image), u uniform from `min_side` to `max_side`, and at least one pixel;
    every place where the square fits is as likely as any other.
    """
    _check_range("min_side", min_side, "max_side", max_side, 1.0)
    size, x, y = rng.random((crops, 3)).T
    side = np.maximum(((min_side + (max_side - min_side) * size) * min(width, height)).astype(np.int64), 1)
    x0, y0 = _draw_integer(x, 0, width - side), _draw_integer(y, 0, height - side)
    return np.stack([x0, y0, x0 + side, y0 + side], axis=-1).astype(np.int32)


def feature_windows(
    cells: np.ndarray,
    *,
    guide_grid: int,
    grid: int,
    width: int,
    height: int,
    min_side: float,
    max_side: float,
    frame: Frame,
    rng: np.random.Generator,
) -> np.ndarray:
    """Square windows int32 `[N, 4]` (r0, c0, r1, c1; ends excluded) of CLIP's G x G tokens (algorithms.md 8.3).

    `cells [N, 2]` (row, column) lie on the guide's grid, which covers the whole image; CLIP's `grid` tokens a side
    cover its central square. `frame="corrected"` maps a cell's centre from one to the other, `"official"` scales the
    index as the authors' code does; `"squashed"` is for models whose tokens cover the whole image. A window is
    2 * (s // 2) + 1 tokens wide, s uniform from int(G * min_side) to int(G * max_side), cut at the border.
    """
    _check_range("min_side", min_side, "max_side", max_side, 1.0)
    rows, columns = _token_cells(cells, guide_grid, grid, width, height, frame)
    smallest, largest = int(grid * min_side), int(grid * max_side)
    reach = _draw_integer(rng.random(len(rows)), smallest, largest + (smallest == largest)) // 2
    return _windows(rows, columns, reach, reach, grid)


def paired_windows(
    boxes: np.ndarray,
    cells: np.ndarray,
    *,
    guide_grid: int,
    grid: int,
    width: int,
    height: int,
    frame: Frame,
) -> np.ndarray:
    """Windows int32 `[N, 4]` of tokens that go with guided `boxes [N, 4]`, as the ABS paper has it (algorithms.md 8.3).

    A window lies around the token of its box's cell, and reaches k = floor(h * grid / side) tokens to both sides, h
    being half the box's side before the border cut it: 2 k + 1 tokens, cut at the border in turn. `side` is what the
    tokens span: the image's shorter side under `frame="corrected"`, its width (or height) under the others. So on
    a square image the sizes are those of `feature_windows`, but width and height each follow the box's own.
    """
    rows, columns = _token_cells(cells, guide_grid, grid, width, height, frame)
    reaches = []
    for low, extent, cell in ((1, height, cells[:, 0]), (0, width, cells[:, 1])):
        centre = _cell_centres(cell, extent, guide_grid)
        half = np.maximum(centre - boxes[:, low], boxes[:, low + 2] - centre)  # a border cuts the shorter of the two
        reaches.append(half * grid // (min(width, height) if frame == "corrected" else extent))
    return _windows(rows, columns, *reaches, grid)


def boxes_at(boxes: np.ndarray, factor: int, width: int, height: int) -> np.ndarray:
    """Boxes int32 `[N, 4]` of an image as boxes of the same image reduced by a whole `factor` to `width` x `height`.

    Edges go to the nearest pixel edge (halves up); a box that would be empty keeps one pixel.
    """
    low, high = np.split((2 * np.asarray(boxes, dtype=np.int64) + factor) // (2 * factor), 2, axis=-1)
    whole = np.array([width, height])
    low = np.minimum(low, whole - 1)
    return np.concatenate([low, np.clip(high, low + 1, whole)], axis=-1).astype(np.int32)


def _cell_centres(cell: np.ndarray, extent: int, guide_grid: int) -> np.ndarray:
    """Pixel in the middle of each cell along one axis of the image, in the ABS code's integers (algorithms.md 8.2)."""
    start = cell.astype(np.int64) * extent // guide_grid
    return (start + np.minimum(start + extent // guide_grid, extent)) // 2


def _token_cells(
    cells: np.ndarray, guide_grid: int, grid: int, width: int, height: int, frame: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of CLIP's token grid for cells of the guide's."""
    cells = np.asarray(cells, dtype=np.int64)
    if frame == "official":
        rows, columns = (cells * grid // guide_grid).T
    elif frame == "corrected":
        rows = _centre_cropped(cells[:, 0], height, min(width, height), guide_grid, grid)
        columns = _centre_cropped(cells[:, 1], width, min(width, height), guide_grid, grid)
    elif frame == "squashed":
        rows, columns = _centre_cropped(cells, 1, 1, guide_grid, grid).T
    else:
        raise ValueError(f"frame is {frame!r}; it must be 'corrected', 'official' or 'squashed'")
    return rows, columns


def _windows(rows: np.ndarray, columns: np.ndarray, down: np.ndarray, across: np.ndarray, grid: int) -> np.ndarray:
    low = np.maximum(np.stack([rows - down, columns - across], axis=-1), 0)
    high = np.minimum(np.stack([rows + down + 1, columns + across + 1], axis=-1), grid)
    return np.concatenate([low, high], axis=-1).astype(np.int32)


def _centre_cropped(cell: np.ndarray, extent: int, side: int, guide_grid: int, grid: int) -> np.ndarray:
    """floor(((cell + 1/2) * extent / guide_grid - (extent - side) / 2) / side * grid), in integers, clipped."""
    numerator = grid * ((2 * cell + 1) * extent - guide_grid * (extent - side))
    return np.clip(numerator // (2 * guide_grid * side), 0, grid - 1)


def _draw_integer(uniform: np.ndarray, low: np.ndarray | int, high: np.ndarray | int) -> np.ndarray:
    """Uniform numbers in [0, 1) -> integers from `low` to `high`, both included."""
    return low + np.floor(uniform * (np.asarray(high) - low + 1)).astype(np.int64)


def _central_box(width: int, height: int, min_aspect: float, max_aspect: float) -> np.ndarray:
    w = min(width, max(round(height * max_aspect), 1))
    h = min(height, max(round(width / min_aspect), 1))
    x0, y0 = (width - w) // 2, (height - h) // 2
    return np.array([x0, y0, x0 + w, y0 + h])


def _check_range(low_name: str, low: float, high_name: str, high: float, limit: float) -> None:
    if not 0 < low <= high <= limit:
        raise ValueError(f"{low_name} and {high_name} must satisfy 0 < {low} <= {high} <= {limit:g}")
