"""Runs of encode_images as a user would start them, timed in steady state: without start-up and first batches."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.run import Selection, StageResult, run_job


@dataclass
class Clock:
    """A watcher that notes when images were done."""

    events: list[tuple[float, int]] = field(default_factory=list)
    results: list[StageResult] = field(default_factory=list)

    def stage_started(self, stage: str, units: int | None, present: int) -> None: ...

    def advanced(self, stage: str, done: int, rejected: int) -> None:
        if stage == "encode_images":
            self.events.append((time.perf_counter(), done + rejected))

    def noted(self, stage: str, text: str) -> None: ...

    def announced(self, text: str) -> None: ...

    def stage_ended(self, stage: str, result: StageResult) -> None:
        self.results.append(result)

    def closed(self) -> None: ...

    def seconds_an_image(self, actors: int) -> float:
        """From the end of the first batch of every actor on: models are loaded and every actor is at work."""
        events = self.events[actors - 1 :]
        images = sum(done for _, done in events[1:])
        return (events[-1][0] - events[0][0]) / images

    def phases(self) -> dict[str, float]:
        """Seconds by phase, summed over workers, of encode_images."""
        return next(result.phases for result in self.results if result.stage == "encode_images")


def encode(job_file: Path, store: Path) -> Clock:
    """Run encode_images into an empty store."""
    shutil.rmtree(store, ignore_errors=True)
    clock = Clock()
    run_job(load_job(job_file), clock, Cluster(), Selection(only="encode_images"))
    return clock


def write_job(path: Path, **keys: Any) -> Path:
    """A job file; JSON is YAML."""
    path.write_text(json.dumps(keys, indent=1))
    return path
