"""python -m benchmarks.compiled: does torch.compile pay? One block of ViT-B-16, eager over compiled, in turns."""

from __future__ import annotations

import json
import statistics
import time

import open_clip
import torch

from stages.vision.feature_crops import FeatureCropper

IMAGES, TURNS = 16, 9


@torch.no_grad()
def ratios(precision: str) -> list[float]:
    """Seconds of a block in eager mode over seconds of the same block compiled."""
    torch.manual_seed(0)
    tower = FeatureCropper(open_clip.create_model("ViT-B-16").eval().visual, precision).tower
    eager, compiled = tower.blocks[0], torch.compile(tower.blocks[0], dynamic=True)
    tokens = tower.enter(torch.randn(IMAGES, 3, 224, 224, dtype=next(eager.parameters()).dtype))
    found = []
    for _ in range(TURNS + 1):
        start = time.perf_counter()
        eager(tokens)
        middle = time.perf_counter()
        compiled(tokens)
        found.append((middle - start) / (time.perf_counter() - middle))
    return found[1:]  # the first turn compiles


if __name__ == "__main__":
    measured = {precision: ratios(precision) for precision in ("fp32", "bf16")}
    print(
        json.dumps(
            {name: [round(f(values), 3) for f in (statistics.median, min, max)] for name, values in measured.items()}
        )
    )
