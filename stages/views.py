"""A view set at work on one image: where it looks, and what the model sees there.

`draw_views` decides from a hash of (seed, image id, purpose) alone, so neither batches nor workers matter;
`view_pixels` cuts, resizes and paints. Planning and decoding import this module for the numbers, so torch waits until
there are pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.settings import (
    AugmentedView,
    AugMixView,
    DrawnByGuide,
    GuidedView,
    PromptedView,
    RandomView,
    SquaresView,
    ViewSettings,
)
from stages.vision.boxes import (
    boxes_at,
    draw_cells,
    feature_windows,
    guided_boxes,
    image_rng,
    paired_windows,
    random_boxes,
    square_boxes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from stages.vision.towers import Tower

ASPECTS = (3 / 4, 4 / 3)  # width / height of torchvision's RandomResizedCrop, which `augmented` and `augmix` take


@dataclass(frozen=True)
class DrawnViews:
    """What was drawn for one image and view set of N views."""

    boxes: np.ndarray
    """int32 [N, 4]: x0, y0, x1, y1 in pixels of the original image, ends excluded"""
    windows: np.ndarray | None = None
    """int32 [N, 4]: r0, c0, r1, c1 in tokens, of the feature crops where there are any"""
    flips: np.ndarray | None = None
    """bool [N]: which views are mirrored, where any may be"""
    mixes: np.ndarray | None = None
    """float64 [N, augmix.DRAWS]: uniform numbers behind the AugMix of each view, where there is one"""


def draw_views(
    view: ViewSettings,
    seed: int,
    image_id: str,
    width: int,
    height: int,
    saliency: np.ndarray | None = None,
    grid: int | None = None,
    *,
    squashed: bool = False,
) -> DrawnViews:
    """Draw the views of one image of `width` x `height` pixels.

    `saliency [G, G]`: the guide's map, for view sets that name a guide (ValueError without). `grid`: tokens a side of
    the model, or None where it cannot crop features; then `windows` is None. `squashed`: whether those tokens cover the
    whole image, as in models that squash it to a square, not its centre.
    """
    if isinstance(view, DrawnByGuide):
        return _draw_by_guide(view, seed, image_id, width, height, saliency, grid, squashed)
    rng = image_rng(seed, image_id, "raw")
    if isinstance(view, RandomView):
        aspect = {"min_aspect": view.min_aspect, "max_aspect": view.max_aspect, "scale_mode": view.scale_mode}
        return DrawnViews(_draw_areas(view, width, height, rng, **aspect))
    if isinstance(view, SquaresView):
        sides = {"min_side": view.min_side, "max_side": view.max_side}
        return DrawnViews(square_boxes(width, height, crops=view.crops, **sides, rng=rng))
    aspect = {"min_aspect": ASPECTS[0], "max_aspect": ASPECTS[1]}
    boxes = _draw_areas(view, width, height, rng, **aspect)
    mirrored = image_rng(seed, image_id, "flip").random(view.crops)
    if isinstance(view, AugmentedView):
        return DrawnViews(boxes, flips=mirrored < view.flip)
    from stages.vision.augmix import DRAWS

    mixes = image_rng(seed, image_id, "augmix").random((view.crops, DRAWS))
    return DrawnViews(boxes, flips=mirrored < 0.5, mixes=mixes)


def view_pixels(view: ViewSettings, drawn: DrawnViews, pixels: Tensor, factor: int, tower: Tower) -> Tensor:
    """What the model sees of an image: normalised `[N, 3, S, S]`, on the device of `pixels`.

    `pixels` uint8 `[3, h, w]` is the image that `drawn` is about, reduced by a whole `factor` (1: as it is).
    """
    boxes = boxes_at(drawn.boxes, factor, pixels.shape[2], pixels.shape[1])
    if isinstance(view, PromptedView):
        return _prompted(view, boxes, pixels, tower)
    if isinstance(view, AugmentedView):
        return _normalize(_mirror(_squashed(pixels, boxes, tower, "bicubic"), drawn.flips), tower)
    if isinstance(view, AugMixView):
        return _augmixed(view, drawn, boxes, pixels, tower)
    if isinstance(view, RandomView | GuidedView) and view.fit == "squash":
        return _normalize(_squashed(pixels, boxes, tower, tower.interpolation), tower)
    return tower.preprocess(pixels, boxes)


def smallest_share(view: ViewSettings) -> float:
    """Shorter side of the smallest box that a view set draws, over the image's shorter side; 1 for whole images.

    From the settings alone, up to the rounding to whole pixels. A guided box counts as it is drawn: the border of the
    image can cut off almost half of it, so whoever reduces images by this leaves a margin of two.
    """
    if isinstance(view, PromptedView):
        return 1.0
    if isinstance(view, GuidedView | SquaresView):
        return view.min_side
    low, high = (view.min_aspect, view.max_aspect) if isinstance(view, RandomView) else ASPECTS
    area = view.min_area**2 if isinstance(view, RandomView) and view.scale_mode == "side" else view.min_area
    # The last two are those of the central box that is taken when none fits.
    return min(math.sqrt(area * min(low, 1 / high)), high, 1 / low)


def _draw_areas(
    view: RandomView | AugmentedView | AugMixView, width: int, height: int, rng: np.random.Generator, **aspect
) -> np.ndarray:
    areas = {"min_area": view.min_area, "max_area": view.max_area}
    return random_boxes(width, height, crops=view.crops, **areas, **aspect, rng=rng)


def _draw_by_guide(
    view: GuidedView | PromptedView,
    seed: int,
    image_id: str,
    width: int,
    height: int,
    saliency: np.ndarray | None,
    grid: int | None,
    squashed: bool,
) -> DrawnViews:
    if saliency is None:
        raise ValueError(f"a {view.kind} view set draws where guide {view.guide!r} looks, and no saliency was given")
    sides = {"min_side": view.min_side, "max_side": view.max_side}
    draw = {"crops": view.crops, "top_k": view.top_k, "temperature": view.temperature}
    boxes, cells = guided_boxes(saliency, width, height, **sides, **draw, rng=image_rng(seed, image_id, "raw"))
    if grid is None or not isinstance(view, GuidedView) or not view.feature_crops:
        return DrawnViews(boxes)
    frame = {"guide_grid": len(saliency), "grid": grid, "width": width, "height": height}
    frame["frame"] = "squashed" if squashed else view.frame
    if view.pairing == "shared":
        return DrawnViews(boxes, paired_windows(boxes, cells, **frame))
    rng = image_rng(seed, image_id, "feature")
    cells = draw_cells(saliency, **draw, rng=rng)
    return DrawnViews(boxes, feature_windows(cells, **frame, **sides, rng=rng))


def _squashed(pixels: Tensor, boxes: np.ndarray, tower: Tower, interpolation: str) -> Tensor:
    """Boxes squashed to the model's square: float32 `[N, 3, S, S]`, whole numbers 0..255."""
    import torch

    from stages.vision.crops import squash

    cuts = (pixels[:, y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist())
    return torch.stack([squash(cut, tower.image_size, interpolation=interpolation) for cut in cuts])


def _mirror(crops: Tensor, flips: np.ndarray) -> Tensor:
    import torch

    chosen = torch.as_tensor(flips, device=crops.device)[:, None, None, None]
    return torch.where(chosen, crops.flip(-1), crops)


def _augmixed(view: AugMixView, drawn: DrawnViews, boxes: np.ndarray, pixels: Tensor, tower: Tower) -> Tensor:
    import torch

    from stages.vision.augmix import augmix

    crops = _mirror(_squashed(pixels, boxes, tower, "bilinear"), drawn.flips)
    return _normalize(augmix(crops.to(torch.uint8), drawn.mixes, view.severity), tower)


def _prompted(view: PromptedView, boxes: np.ndarray, pixels: Tensor, tower: Tower) -> Tensor:
    """One painted image at a time, since whole photographs are large."""
    import torch

    from stages.vision.visual_prompts import circled, highlighted, masked

    painted: Iterable[Tensor]
    if view.prompt == "mask":
        mean = [round(255 * channel) for channel in tower.mean]
        painted = masked(pixels, boxes, mean if view.fill == "mean" else (0, 0, 0))
    elif view.prompt == "highlight":
        painted = highlighted(pixels, boxes, dim=view.dim, blur=view.blur)
    else:
        painted = circled(pixels, boxes, line=view.line)
    return torch.cat([tower.preprocess(image) for image in painted])


def _normalize(crops: Tensor, tower: Tower) -> Tensor:
    from stages.vision.crops import normalize

    return normalize(crops, tower.mean, tower.std)
