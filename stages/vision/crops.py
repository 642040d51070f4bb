"""Boxes of an image -> pixels at the encoder's size, as CLIP's own preprocessing gives them.

For every box: Resize(shorter side = size, bicubic, antialiased), then CenterCrop(size) (algorithms.md 0.4,
item 1). On a CPU torch's uint8 kernel does it, which rounds between its two passes as Pillow does. That
kernel exists nowhere else and would build the whole enlarged box, so other devices and very long boxes use
two matrices that make only what is kept.

On a CPU crops stay in the layout that pictures have, channels last: nothing is transposed on the way, and the
encoder's patch embedding reads it faster too.
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

    Values are whole numbers 0..255, on the image's device. Against Pillow on photographs 99.9 % of them are within 1
    level and none is more than 2 away, for square and wide boxes and boxes of a few pixels, enlarged or shrunk; boxes
    of one pixel are equal. Pillow from 13 on filters some tall boxes that shrink down first, where Pillow before it
    and we filter across first: there 99.5 % of a crop's values are within 1 and the largest difference seen is 7.
    Raises ValueError for a box that is empty or leaves the image.
    """
    if isinstance(boxes, torch.Tensor):
        boxes = boxes.cpu().numpy()
    rows = np.array(boxes, dtype=np.int64).reshape(-1, 4)
    _check_boxes(rows, image)
    if image.device.type != "cpu":
        return _resample(image, rows, size)
    crops = torch.empty((len(rows), size, size, 3)).permute(0, 3, 1, 2)
    outputs = _output_sizes(rows, size).tolist()
    for index, (x0, y0, x1, y1) in enumerate(rows.tolist()):
        if max(x1 - x0, y1 - y0) > LONGEST * min(x1 - x0, y1 - y0):
            crops[index] = _resample(image, rows[index : index + 1], size)[0]
        else:
            crops[index] = _resize_and_center(image[:, y0:y1, x0:x1], *outputs[index], size)
    return crops


def preprocess_whole(image: torch.Tensor, size: int) -> torch.Tensor:
    """CLIP's preprocessing of the whole `image` uint8 `[3, H, W]` -> float32 `[3, size, size]`, 0..255."""
    height, width = image.shape[1:]
    return resize_crops(image, np.array([[0, 0, width, height]]), size)[0]


def squash(image: torch.Tensor, size: int, *, interpolation: str = "bilinear") -> torch.Tensor:
    """The whole `image` uint8 `[3, H, W]`, aspect not kept -> float32 `[3, size, size]`, 0..255, antialiased.

    Bilinear is how DINO's processor sees an image (algorithms.md 8.1, item 1).
    """
    if image.device.type == "cpu":
        return _interpolate(image, size, size, interpolation).float()
    resized = F.interpolate(image[None].float(), (size, size), mode=interpolation, antialias=True, align_corners=False)
    return resized[0].round_().clamp_(0, 255)


def normalize(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Pixels 0..255 `[..., 3, H, W]` -> float32 (pixels / 255 - mean) / std, by channel, in the layout they have.

    float32 pixels are overwritten: crops are made to be normalised, and fetching fresh memory for a second copy of
    them takes longer than the arithmetic. Others are left as they are.
    """
    pixels = pixels.float()
    scale = pixels.new_tensor([1 / (255 * s) for s in std])
    shift = pixels.new_tensor([-m / s for m, s in zip(mean, std, strict=True)])
    last = pixels.movedim(-3, -1)
    if last.is_contiguous():
        # rows of pixels as one axis: an axis of three numbers is too short for the processor's vectors
        width, rows = last.shape[-2], last.flatten(-2)
        torch.addcmul(shift.repeat(width), rows, scale.repeat(width), out=rows)
    else:
        torch.addcmul(shift[:, None, None], pixels, scale[:, None, None], out=pixels)
    return pixels


def _check_boxes(rows: np.ndarray, image: torch.Tensor) -> None:
    height, width = image.shape[1:]
    x0, y0, x1, y1 = rows.T
    bad = (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height) | (x1 <= x0) | (y1 <= y0)
    if bad.any():
        raise ValueError(f"box {rows[bad.argmax()].tolist()} is empty or leaves an image of {width} x {height}")


def _output_sizes(rows: np.ndarray, size: int) -> np.ndarray:
    """torchvision's Resize(size) of boxes `[N, 4]`: the shorter side becomes `size`, the longer one is rounded down.

    Returns whole numbers `[N, 2]`: width, height.
    """
    sides = rows[:, 2:] - rows[:, :2]
    return np.floor(size * sides / sides.min(axis=1, keepdims=True)).astype(np.int64)


def _offset(resized: int, size: int) -> int:
    return round((resized - size) / 2)  # torchvision's CenterCrop, Python's rounding included


def _resize_and_center(cut: torch.Tensor, width: int, height: int, size: int) -> torch.Tensor:
    """One crop uint8 `[3, h, w]` on the CPU -> uint8 `[3, size, size]`."""
    top, left = _offset(height, size), _offset(width, size)
    return _interpolate(cut, width, height, "bicubic")[:, top : top + size, left : left + size]


def _interpolate(cut: torch.Tensor, width: int, height: int, interpolation: str) -> torch.Tensor:
    """Pixels uint8 `[3, h, w]` on the CPU -> uint8 `[3, height, width]`, antialiased."""
    pixels = cut[None].contiguous(memory_format=torch.channels_last)  # the layout that torch's kernel is fast in
    return F.interpolate(pixels, (height, width), mode=interpolation, antialias=True, align_corners=False)[0]


def _resample(image: torch.Tensor, rows: np.ndarray, size: int) -> torch.Tensor:
    """The same on any device by two matrix products for many boxes, across then down, rounded between as Pillow does.

    Boxes go together as long as their intermediate rows fit the working set; of a long box only what CenterCrop keeps
    is looked at.
    """
    crops = image.new_empty((len(rows), 3, size, size), dtype=torch.float32)
    if not len(rows):
        return crops
    kept = _kept(rows, size)
    width, height = kept[:, 2:].max(axis=0) - kept[:, :2].min(axis=0)
    together = max(1, WORKING_SET // int(size * (width + 4 * height)))
    for start in range(0, len(rows), together):
        part, seen = rows[start : start + together], kept[start : start + together]
        (left, top), (right, bottom) = seen[:, :2].min(axis=0), seen[:, 2:].max(axis=0)
        window = image[:, top:bottom, left:right].float()
        inside = (part - [left, top, left, top]).reshape(-1, 2, 2)  # box, low or high, across or down
        axes = np.concatenate([inside, _output_sizes(part, size)[:, None]], axis=1).transpose(2, 1, 0)
        axes = torch.as_tensor(np.ascontiguousarray(axes, dtype=np.float64), device=image.device)  # one copy for all
        across = _weights(*axes[0], right - left, size)
        down = _weights(*axes[1], bottom - top, size)
        narrow = torch.einsum("nsw,chw->nchs", across, window).round_().clamp_(0, 255)
        crops[start : start + together] = torch.einsum("nth,nchs->ncts", down, narrow).round_().clamp_(0, 255)
    return crops


def _kept(rows: np.ndarray, size: int) -> np.ndarray:
    """The part of each box `[N, 4]` that CenterCrop's pixels are made of: a box of any length costs what is kept."""
    sides = rows[:, 2:] - rows[:, :2]
    resized = _output_sizes(rows, size)
    scale = sides / resized
    margin = 2 * np.maximum(scale, 1.0) + 1
    low = np.floor((np.round((resized - size) / 2)) * scale - margin).astype(np.int64)
    high = np.ceil((np.round((resized - size) / 2) + size) * scale + margin).astype(np.int64)
    return np.concatenate([rows[:, :2] + np.maximum(low, 0), rows[:, :2] + np.minimum(high, sides)], axis=1)


def _weights(low: torch.Tensor, high: torch.Tensor, resized: torch.Tensor, extent: int, size: int) -> torch.Tensor:
    """Pillow's antialiased bicubic (a = -1/2) along one axis as matrices float32 `[n, size, extent]`.

    Row i of matrix n makes the i-th pixel that CenterCrop keeps of `low[n]..high[n]` (float64) resized to `resized[n]`
    pixels; it sums to 1.
    """
    low, high, resized = low[:, None], high[:, None], resized[:, None]
    offset = ((resized - size) / 2).round()
    scale = (high - low) / resized
    stretch = scale.clamp_min(1.0)
    kept = torch.arange(size, dtype=torch.float64, device=low.device)[None]
    centre = low + (kept + offset + 0.5) * scale
    first = torch.maximum((centre - 2 * stretch + 0.5).floor(), low)[:, :, None]
    last = torch.minimum((centre + 2 * stretch + 0.5).floor(), high)[:, :, None]
    pixel = torch.arange(extent, dtype=torch.float64, device=low.device)
    weights = _cubic((pixel - centre[:, :, None] + 0.5) / stretch[:, :, None])
    weights = torch.where((pixel >= first) & (pixel < last), weights, 0.0)
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' kernel with a = -1/2, the one of Pillow and of torch's antialiased bicubic."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
