"""The forward passes that cannot be avoided, and nothing else: what the stage is measured against.

For every image the encoder on one whole image and on N ready-made crops, and the DINO guide once: normalised tensors
in memory, open_clip's and timm's own modules, all cores.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

BATCHES = (16, 64)
CALIBRATION = 64
"""Inputs a process by which ways are compared."""
RAY_NICENESS = 15
"""Ray's workers have it: the two sides must be equals before the operating system."""


@dataclass(frozen=True)
class Passes:
    """Which models run, and how often an image."""

    clip: Path
    dino: Path | None
    crops: int
    precision: str


class Bare:
    """Worker processes that hold the models; the fastest of a few ways to share cores and batches is kept."""

    def __init__(self, passes: Passes):
        cores = os.cpu_count() or 1
        rates = {}
        for processes, threads in sorted({(cores, 1), (1, cores)}):
            workers = _Workers(passes, processes, threads)
            for batch in BATCHES:
                workers.seconds_for(batch, batch)  # warms up
                seconds = min(workers.seconds_for(CALIBRATION, batch) for _ in range(2))
                rates[processes, threads, batch] = processes * CALIBRATION / seconds
            workers.close()
        self.way = max(rates, key=rates.get)
        *way, self.batch = self.way
        self.passes, self.workers = passes, _Workers(passes, *way)
        self.workers.seconds_for(self.batch, self.batch)

    def seconds_an_image(self, images: int) -> float:
        """Seconds an image of the passes of `images` images (rounded up to a whole number a worker)."""
        share = -(-images // len(self.workers.pipes))
        seconds = self.workers.seconds_for(share * (self.passes.crops + 1), self.batch, guides=share)
        return seconds / (share * len(self.workers.pipes))

    def close(self) -> None:
        self.workers.close()


class _Workers:
    def __init__(self, passes: Passes, processes: int, threads: int):
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            context.Process(target=_work, args=(theirs, passes, threads), daemon=True).start()
            theirs.close()  # so that the death of a worker ends the waiting for it
            self.pipes.append(ours)

    def seconds_for(self, inputs: int, batch: int, guides: int = 0) -> float:
        """Every worker encodes so many inputs and guide inputs; seconds until the last is done."""
        for pipe in self.pipes:
            pipe.recv()  # it is ready
        start = time.perf_counter()
        for pipe in self.pipes:
            pipe.send((inputs, batch, guides))
        for pipe in self.pipes:
            pipe.recv()
        seconds = time.perf_counter() - start
        for pipe in self.pipes:
            pipe.send("again")
        return seconds

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()


def _work(pipe: Connection, passes: Passes, threads: int) -> None:
    import open_clip
    import timm
    import torch

    from benchmarks.models import DINO

    os.nice(RAY_NICENESS)
    torch.set_num_threads(threads)
    model = open_clip.create_model(f"local-dir:{passes.clip}").eval()
    guide = None
    if passes.dino is not None:
        overlay = {"file": str(passes.dino), "custom_load": False}
        guide = timm.create_model(DINO, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay).eval()
    dtype = torch.float32 if passes.precision == "fp32" else torch.bfloat16
    model, guide = model.to(dtype), None if guide is None else guide.to(dtype)
    pixels = torch.randn(max(BATCHES), 3, 224, 224, dtype=dtype)
    with contextlib.suppress(EOFError, ConnectionError), torch.inference_mode():
        while True:
            pipe.send("ready")
            inputs, batch, guides = pipe.recv()
            for size in _parts(inputs, batch):
                model.encode_image(pixels[:size])
            for size in _parts(guides, batch):
                guide(pixels[:size])
            pipe.send("done")
            pipe.recv()


def _parts(count: int, size: int) -> list[int]:
    whole, rest = divmod(count, size)
    return [*itertools.repeat(size, whole), *([rest] if rest else [])]
