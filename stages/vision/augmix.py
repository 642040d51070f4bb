"""AugMix as TPT and TDA use it: a crop mixed with three chains of simple operations (algorithms.md 10).

The operations are Pillow's, as AugMix's authors call them, on batches of uint8 tensors of any device; each is within
one level of Pillow's own. All chance is in numbers drawn beforehand, so a view depends on its image alone.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as vision

OPERATIONS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
CHAINS, LONGEST_CHAIN = 3, 3
STEP = 3  # numbers a step draws: operation, level, sign
CHAIN = 1 + LONGEST_CHAIN * STEP  # and a chain: its length, its steps
DRAWS = CHAINS + 1 + CHAINS * CHAIN  # and a view: the weights of its chains, the share of the crop itself, its chains
ROUNDING = 1e-3  # added before pixels are cut to whole levels, or 99.99999 would become 99


def augmix(crops: torch.Tensor, draws: np.ndarray, severity: float = 1.0) -> torch.Tensor:
    """Crops uint8 `[N, 3, S, S]` -> mixed crops float32 `[N, 3, S, S]`, 0..255 and not rounded.

    `draws [N, DRAWS]` are uniform numbers in [0, 1), a row a view. Three chains of one to three operations start from
    the crop; their results are summed under weights from Dirichlet(1, 1, 1), and that sum is mixed with the crop under
    a share from Beta(1, 1). An operation's level is uniform from .1 to `severity` (of 10).
    """
    if draws.shape != (len(crops), DRAWS):
        raise ValueError(f"draws must have the shape [{len(crops)}, {DRAWS}], got {list(draws.shape)}")
    exponential = -np.log1p(-draws[:, :CHAINS])
    weights = exponential / exponential.sum(axis=1, keepdims=True)
    own = draws[:, CHAINS]
    ends = _run_chains(crops, draws[:, CHAINS + 1 :].reshape(len(crops), CHAINS, CHAIN), severity)
    weights = torch.as_tensor(weights * (1 - own[:, None]), dtype=torch.float32, device=crops.device)
    own = torch.as_tensor(own, dtype=torch.float32, device=crops.device)
    return own[:, None, None, None] * crops.float() + torch.einsum("nk,nkchw->nchw", weights, ends.float())


def _run_chains(crops: torch.Tensor, draws: np.ndarray, severity: float) -> torch.Tensor:
    """The end of every chain, uint8 `[N, CHAINS, 3, S, S]`: what two views do in the same step is done together."""
    images = crops.repeat_interleave(CHAINS, dim=0)
    flat = draws.reshape(-1, CHAIN)
    lengths = 1 + (flat[:, 0] * LONGEST_CHAIN).astype(int)
    steps = flat[:, 1:].reshape(-1, LONGEST_CHAIN, STEP)
    chosen = (steps[..., 0] * len(OPERATIONS)).astype(int)
    levels = 0.1 + (severity - 0.1) * steps[..., 1]
    signs = np.where(steps[..., 2] < 0.5, 1, -1)
    for step in range(LONGEST_CHAIN):
        for number, operation in enumerate(OPERATIONS):
            rows = np.flatnonzero((step < lengths) & (chosen[:, step] == number))
            if len(rows):
                places = torch.as_tensor(rows, device=images.device)
                images[places] = apply_operation(images[places], operation, levels[rows, step], signs[rows, step])
    return images.unflatten(0, (-1, CHAINS))


def apply_operation(images: torch.Tensor, operation: str, levels: np.ndarray, signs: np.ndarray) -> torch.Tensor:
    """Images uint8 `[K, 3, S, S]` after one operation, each at its level (0..10) and, if it has two sides, its sign.

    autocontrast and equalize have no level. Posterize keeps 4 - int(.4 level) bits, solarize inverts from
    256 - int(25.6 level) up, rotate turns by int(3 level) degrees, shear moves .03 level pixels a pixel, translate
    int(S / 30 level) pixels; what comes from outside is black.
    """
    if operation == "autocontrast":
        return vision.autocontrast(images)
    if operation == "equalize":
        return vision.equalize(images)
    if operation == "posterize":
        kept = 256 - (1 << (4 + (levels * 0.4).astype(int)))
        return images & _column(kept, images)
    if operation == "solarize":
        threshold = _column(255 - (levels * 25.6).astype(int), images)  # 256 itself does not fit a byte
        return torch.where(images > threshold, 255 - images, images)
    pairs = zip(levels, signs, strict=True)
    return _warp(images, np.stack([_matrix(operation, level, sign, images.shape[-1]) for level, sign in pairs]))


def _column(values: np.ndarray, images: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.uint8, device=images.device)[:, None, None, None]


def _matrix(operation: str, level: float, sign: int, size: int) -> np.ndarray:
    """Pillow's affine `[2, 3]`: where in the input (pixels, corner at 0) a place of the output comes from."""
    shear, shift = sign * 0.03 * level, sign * int(level * size / 30)
    if operation == "shear_x":
        return np.array([[1, shear, 0], [0, 1, 0]])
    if operation == "shear_y":
        return np.array([[1, 0, 0], [shear, 1, 0]])
    if operation == "translate_x":
        return np.array([[1, 0, shift], [0, 1, 0]])
    if operation == "translate_y":
        return np.array([[1, 0, 0], [0, 1, shift]])
    if operation != "rotate":
        raise ValueError(f"operation {operation!r} is not known; it must be one of {', '.join(OPERATIONS)}")
    angle, middle = np.deg2rad(sign * int(3 * level)), size / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([turn, middle - turn.sum(axis=1, keepdims=True) * middle], axis=1)


def _warp(images: torch.Tensor, matrices: np.ndarray) -> torch.Tensor:
    """Images uint8 `[K, 3, S, S]` under affine maps `[K, 2, 3]`, bilinear, as Pillow does: cut to whole levels."""
    size, device = images.shape[-1], images.device
    middle = torch.arange(size, dtype=torch.float64, device=device) + 0.5
    maps = torch.as_tensor(matrices, dtype=torch.float64, device=device)[..., None]  # [K, 2, 3, 1]
    along_x, along_y = maps[:, :, 0] * middle, maps[:, :, 1] * middle + maps[:, :, 2]
    across, down = (along_x.float()[:, :, None, :] + along_y.float()[:, :, :, None]).unbind(dim=1)
    inside = (across >= 0) & (across < size) & (down >= 0) & (down < size)
    grid = torch.stack([across, down], dim=-1).mul_(2 / size).sub_(1)
    warped = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.add_(ROUNDING).mul_(inside[:, None]).to(torch.uint8)
