"""Boxes of an image -> pixels at the encoder's size, as CLIP's own preprocessing gives them.

For every box: Resize(shorter side = size, bicubic, antialiased), then CenterCrop(size) (algorithms.md 0.4,
item 1). On a CPU torch's uint8 kernel does it, which rounds between its two passes as Pillow does. That
kernel exists nowhere else and would build the whole enlarged box, so other devices and very long boxes use
two matrices that make only what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

LONGEST = 8  # times the shorter side: beyond this the part that CenterCrop throws away is not worth making
WORKING_SET = 1 << 24  # numbers held at once by the matrix path, below 1 GB with its temporaries


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """RGB pixels uint8 `[H, W, 3]`, read-only or not, as a tensor uint8 `[3, H, W]`."""
    return torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)


def resize_crops(image: torch.Tensor, boxes: torch.Tensor | np.ndarray, size: int) -> torch.Tensor:
    """Cut `boxes [N, 4]` (x0, y0, x1, y1) out of `image` uint8 `[3, H, W]` -> float32 `[N, 3, size, size]`.

    Values are whole numbers 0..255, on the image's device, within 2 levels of Pillow's (99.9 % within 1).
    Raises ValueError for a box that is empty or leaves the image.
    """
    if isinstance(boxes, torch.Tensor):
        boxes = boxes.cpu().numpy()
    rows = np.array(boxes, dtype=np.int64).reshape(-1, 4)
    _check_boxes(rows, image)
    if image.device.type != "cpu":
        return _resample(image, rows, size)
    crops = torch.empty((len(rows), 3, size, size))
    for index, (x0, y0, x1, y1) in enumerate(rows.tolist()):
        if max(x1 - x0, y1 - y0) > LONGEST * min(x1 - x0, y1 - y0):
            crops[index] = _resample(image, rows[index : index + 1], size)[0]
        else:
            crops[index] = _resize_and_center(image[:, y0:y1, x0:x1], size)
    return crops


def preprocess_whole(image: torch.Tensor, size: int) -> torch.Tensor:
    """CLIP's preprocessing of the whole `image` uint8 `[3, H, W]` -> float32 `[3, size, size]`, 0..255."""
    height, width = image.shape[1:]
    return resize_crops(image, np.array([[0, 0, width, height]]), size)[0]


def squash(image: torch.Tensor, size: int, *, interpolation: str = "bilinear") -> torch.Tensor:
    """The whole `image` uint8 `[3, H, W]`, aspect not kept -> float32 `[3, size, size]`, 0..255, antialiased.

    Bilinear is how DINO's processor sees an image (algorithms.md 8.1, item 1).
    """
    pixels = image[None] if image.device.type == "cpu" else image[None].float()
    resized = F.interpolate(pixels, size=(size, size), mode=interpolation, antialias=True, align_corners=False)
    return resized[0].float().round().clamp(0, 255)


def normalize(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Pixels 0..255 `[..., 3, H, W]` -> float32 (pixels / 255 - mean) / std, by channel."""
    scale = pixels.new_tensor([255.0 * s for s in std], dtype=torch.float32)[:, None, None]
    shift = pixels.new_tensor([255.0 * m for m in mean], dtype=torch.float32)[:, None, None]
    return (pixels.float() - shift) / scale


def _check_boxes(rows: np.ndarray, image: torch.Tensor) -> None:
    height, width = image.shape[1:]
    x0, y0, x1, y1 = rows.T
    bad = (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height) | (x1 <= x0) | (y1 <= y0)
    if bad.any():
        raise ValueError(f"box {rows[bad.argmax()].tolist()} is empty or leaves an image of {width} x {height}")


def _output_size(height: int, width: int, size: int) -> tuple[int, int]:
    """torchvision's Resize(size): the shorter side becomes `size`, the longer one is rounded down."""
    if width <= height:
        return int(size * height / width), size
    return size, int(size * width / height)


def _offset(resized: int, size: int) -> int:
    return round((resized - size) / 2)  # torchvision's CenterCrop, Python's rounding included


def _resize_and_center(cut: torch.Tensor, size: int) -> torch.Tensor:
    """One crop uint8 `[3, h, w]` on the CPU -> uint8 `[3, size, size]`."""
    height, width = _output_size(cut.shape[1], cut.shape[2], size)
    pixels = cut[None].contiguous(memory_format=torch.channels_last)  # the layout that torch's kernel is fast in
    resized = F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True, align_corners=False)[0]
    top, left = _offset(height, size), _offset(width, size)
    return resized[:, top : top + size, left : left + size]


def _resample(image: torch.Tensor, rows: np.ndarray, size: int) -> torch.Tensor:
    """The same on any device by two matrix products a box, across then down, rounded between them as Pillow does.

    Boxes go together as long as their intermediate rows fit the working set.
    """
    crops = image.new_empty((len(rows), 3, size, size), dtype=torch.float32)
    outputs = np.array([_output_size(y1 - y0, x1 - x0, size) for x0, y0, x1, y1 in rows.tolist()]).reshape(-1, 2)
    height, width = image.shape[1:]
    together = max(1, WORKING_SET // (size * (width + 4 * height)))
    for start in range(0, len(rows), together):
        part = slice(start, start + together)
        left, top = rows[part, :2].min(axis=0)
        right, bottom = rows[part, 2:].max(axis=0)
        window = image[:, top:bottom, left:right].float()
        across = _weights(
            rows[part, 0] - left, rows[part, 2] - left, outputs[part, 1], right - left, size, window.device
        )
        down = _weights(rows[part, 1] - top, rows[part, 3] - top, outputs[part, 0], bottom - top, size, window.device)
        narrow = torch.einsum("nsw,chw->nchs", across, window).round_().clamp_(0, 255)
        crops[part] = torch.einsum("nth,nchs->ncts", down, narrow).round_().clamp_(0, 255)
    return crops


def _weights(
    low: np.ndarray, high: np.ndarray, resized: np.ndarray, extent: int, size: int, device: torch.device
) -> torch.Tensor:
    """Pillow's antialiased bicubic (a = -1/2) along one axis as matrices float32 `[n, size, extent]`.

    Row i of matrix n makes the i-th pixel that CenterCrop keeps of `low..high` resized to `resized` pixels;
    it sums to 1.
    """
    low, high, resized = (torch.as_tensor(a, dtype=torch.float64, device=device)[:, None] for a in (low, high, resized))
    offset = ((resized - size) / 2).round()
    scale = (high - low) / resized
    stretch = scale.clamp_min(1.0)
    kept = torch.arange(size, dtype=torch.float64, device=device)[None]
    centre = low + (kept + offset + 0.5) * scale
    first = torch.maximum((centre - 2 * stretch + 0.5).floor(), low)[:, :, None]
    last = torch.minimum((centre + 2 * stretch + 0.5).floor(), high)[:, :, None]
    pixel = torch.arange(extent, dtype=torch.float64, device=device)
    weights = _cubic((pixel - centre[:, :, None] + 0.5) / stretch[:, :, None])
    weights = torch.where((pixel >= first) & (pixel < last), weights, 0.0)
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' kernel with a = -1/2, the one of Pillow and of torch's antialiased bicubic."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
