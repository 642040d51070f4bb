"""Marks drawn into a whole image to show a model where to look: the visual prompts that ABS is compared with.

Nothing is cut out, so the model keeps the surroundings. The red circle is that of RedCircle (arXiv 2304.06712): pure
red, an ellipse that fills the box; its line of 1 % of the shorter side is close to the 2 pixels at 224 to 336 of FGVP's
code (arXiv 2306.04356). Mask and highlight are FGVP's reverse box masks: what lies outside the box is covered, or
dimmed by half, or blurred; we cover and dim with black where its code defaults to green.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter

RED = (255, 0, 0)


def masked(image: torch.Tensor, boxes: np.ndarray, color: Sequence[int] = (0, 0, 0)) -> Iterator[torch.Tensor]:
    """For every box of `boxes [N, 4]`: `image` uint8 `[3, H, W]` inside it, `color` (0..255) outside."""
    covered = _filled(image, color).expand_as(image)
    return (_revealed(image, covered, box) for box in boxes.tolist())


def highlighted(
    image: torch.Tensor, boxes: np.ndarray, *, dim: float = 0.5, blur: float = 0.0
) -> Iterator[torch.Tensor]:
    """For every box: `image` uint8 `[3, H, W]` inside it; outside `dim` times its brightness, blurred first.

    `blur`: the Gaussian's standard deviation as a share of the image's shorter side; Pillow's approximation of it.
    """
    outside = image
    if blur > 0:
        sharp = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
        soft = np.array(sharp.filter(ImageFilter.GaussianBlur(blur * min(sharp.size))))
        outside = torch.from_numpy(soft).permute(2, 0, 1).to(image.device)
    outside = (outside.float() * dim).round().to(torch.uint8)
    return (_revealed(image, outside, box) for box in boxes.tolist())


def circled(image: torch.Tensor, boxes: np.ndarray, *, line: float = 0.01) -> Iterator[torch.Tensor]:
    """For every box: `image` uint8 `[3, H, W]` with a red ellipse that touches the box's edges from inside.

    `line`: its width as a share of the image's shorter side, rounded, at least one pixel.
    """
    width = max(1, round(line * min(image.shape[1:])))
    red = _filled(image, RED)
    return (torch.where(_ring(image, box, width), red, image) for box in boxes.tolist())


def _filled(image: torch.Tensor, color: Sequence[int]) -> torch.Tensor:
    return torch.tensor(color, dtype=torch.uint8, device=image.device)[:, None, None]


def _revealed(image: torch.Tensor, outside: torch.Tensor, box: Sequence[int]) -> torch.Tensor:
    x0, y0, x1, y1 = box
    painted = outside.clone()
    painted[:, y0:y1, x0:x1] = image[:, y0:y1, x0:x1]
    return painted


def _ring(image: torch.Tensor, box: Sequence[int], width: int) -> torch.Tensor:
    """Bool `[H, W]`: pixels whose middle lies in the ellipse that fills the box, but not in one `width` smaller."""
    x0, y0, x1, y1 = box
    x = torch.arange(image.shape[2], device=image.device) + 0.5 - (x0 + x1) / 2
    y = torch.arange(image.shape[1], device=image.device)[:, None] + 0.5 - (y0 + y1) / 2
    across, down = (x1 - x0) / 2, (y1 - y0) / 2
    ring = (x / across) ** 2 + (y / down) ** 2 <= 1
    if min(across, down) > width:
        ring &= (x / (across - width)) ** 2 + (y / (down - width)) ** 2 > 1
    return ring
