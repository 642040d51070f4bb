"""Windows of a token grid enlarged to the whole grid, as F.interpolate(mode="bicubic", align_corners=False) does it.

Resizing is linear and separable: a window is two matrices, `down` for its rows and `across` for its columns, each
enlarged position x token position over the whole grid. Letters as in algorithms.md: B images, N windows, G grid side,
P = G * G patches, D width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def check_windows(windows: torch.Tensor | np.ndarray, images: int, grid: int) -> torch.Tensor:
    """`windows [B, N, 4]` (r0, c0, r1, c1; ends excluded) as int64; ValueError for an empty one or one off the grid."""
    if isinstance(windows, torch.Tensor):
        windows = windows.cpu().numpy()
    found = np.array(windows, dtype=np.int64)
    if found.ndim != 3 or found.shape[0] != images or found.shape[2] != 4:
        raise ValueError(f"windows must have the shape [{images}, N, 4], got {list(found.shape)}")
    low, high = found[..., :2], found[..., 2:]
    bad = ((low < 0) | (high > grid) | (low >= high)).any(axis=-1)
    if bad.any():
        raise ValueError(f"window {found[bad][0].tolist()} is empty or leaves the {grid} x {grid} grid")
    return torch.from_numpy(found)


def span_table(grid: int) -> torch.Tensor:
    """Bicubic matrices of every span, `[G, G + 1, G, G]`: (start, end) -> enlarged position x token position."""
    table = torch.zeros(grid, grid + 1, grid, grid)
    for length in range(1, grid + 1):
        impulses = torch.eye(length).view(1, length, length, 1)
        matrix = F.interpolate(impulses, size=(grid, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
        for start in range(grid - length + 1):
            table[start, start + length, :, start : start + length] = matrix
    return table


def resizers(table: torch.Tensor, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`down` and `across`, both `[B, N, G, G]`, of checked `windows [B, N, 4]` by a `span_table`."""
    return table[windows[..., 0], windows[..., 2]], table[windows[..., 1], windows[..., 3]]


def enlarge(patches: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """The tokens of B x N enlarged windows, `[B, N, P, D]`, of `patches [B, P, D]`."""
    (images, count, grid, _), width = down.shape, patches.shape[-1]
    rows = down.flatten(1, 2) @ patches.view(images, grid, grid * width)
    return (across[:, :, None] @ rows.view(images, count, grid, grid, width)).flatten(2, 3)
