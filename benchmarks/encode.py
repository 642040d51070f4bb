"""python -m benchmarks.encode: how close encode_images comes to the bare encoder, and what it costs as it grows.

Prints one JSON document on standard output; what it is doing goes to standard error. Every figure but the memory's is
a ratio of two sides that took turns; a median, with the range beside it under `ranges`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

CROPS = {"ViT-B-32": 20, "ViT-B-16": 10}


def main() -> None:
    """Measure what the command line asks for, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first three figures, two pairs of short runs each")
    parser.add_argument(
        "--only", choices=["efficiency", "feature_crops", "bf16", "growth"], help="one group of figures"
    )
    parser.add_argument("--pairs", type=int, help="turns that each side takes (default: 5, with --quick 2)")
    parser.add_argument("--folder", type=Path, help="where images and stores lie (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-encode-") as temporary:
        folder = arguments.folder or Path(temporary)
        figures = measure(folder, quick=arguments.quick, only=arguments.only, pairs=arguments.pairs)
        print(json.dumps(figures, indent=1))


def measure(folder: Path, *, quick: bool, only: str | None, pairs: int | None) -> dict[str, Any]:
    """All figures, or with `quick` the first three, or `only` one group of them."""
    from benchmarks.feature_crops import feature_crop_overhead

    figures: dict[str, Any] = {"cores": os.cpu_count(), "ranges": {}}
    if only in (None, "efficiency", "bf16"):
        _start_ray()
        world = _World(folder, quick, pairs)
        if only in (None, "efficiency"):
            _efficiency(world, figures)
        if only in (None, "bf16"):
            _bf16(world, figures)
        _stop_ray()
    if only in (None, "feature_crops"):
        tell("feature crops of ViT-B-16")
        _note(figures, "feature_crop_overhead", feature_crop_overhead(pairs=5 if quick else 15))
    if only == "growth" or (only is None and not quick):
        from benchmarks.growth import growth

        figures |= growth(folder / "growth")
    return figures


class _World:
    """Photographs, models and how long the runs are."""

    def __init__(self, folder: Path, quick: bool, pairs: int | None):
        from benchmarks import models, photos

        self.folder, self.pairs = folder, pairs or (2 if quick else 5)
        self.actors = os.cpu_count() or 1
        # Smaller than the default of 16, for runs that are short and steady: not so small that forward passes suffer.
        self.batch = 4 if quick else 8
        self.images = self.batch * self.actors * (3 if quick else 4)
        tell(f"{self.images} photographs, random weights")
        self.photos = photos.write_photos(folder, self.images)
        self.models = {name: models.write_clip(folder, name) for name in CROPS}
        self.dino = models.write_dino(folder)

    def job(self, name: str, precision: str) -> Path:
        """The job file that encodes the photographs with the architecture `name` in `precision`."""
        from benchmarks.models import DINO
        from benchmarks.stage import write_job

        return write_job(
            self.folder / f"{name}-{precision}.yaml",
            store=f"store-{name}-{precision}",
            dataset={"path": "photos", "classes": "classes.txt"},
            model={"name": f"local-dir:{self.models[name]}", "precision": precision},
            guides={"dino": {"kind": "dino", "name": DINO, "weights": str(self.dino)}},
            views={"guided": {"kind": "guided", "guide": "dino", "crops": CROPS[name], "feature_crops": True}},
            methods=["clip"],
            resources={"encode": {"gpus": 0, "batch": self.batch, "actors": self.actors}},
        )

    def run(self, name: str, precision: str) -> Any:
        """Run that job's encode_images into an empty store; returns the `Clock` that watched."""
        from benchmarks.stage import encode

        (self.folder / "classes.txt").write_text("photograph\n")
        return encode(self.job(name, precision), self.folder / f"store-{name}-{precision}")


def _efficiency(world: _World, figures: dict[str, Any]) -> None:
    """Bare seconds over the stage's, in turns.

    The stage may beat 1: of every last block it computes one row (exact to 1e-5), and its crops come in the layout that
    the patch embedding reads fastest. `forward_passes_of_wall_time` is its share of time in its own forward passes.
    """
    from benchmarks.bare import Bare, Passes

    figures["efficiency"], figures["profile"], figures["bare"] = {}, {}, {}
    for name, crops in CROPS.items():
        bare = Bare(Passes(world.models[name], world.dino, crops, "fp32"))
        ratios, seconds = [], []
        for _ in range(world.pairs):
            before = bare.seconds_an_image(world.images // 4)
            clock = world.run(name, "fp32")
            after = bare.seconds_an_image(world.images // 4)
            seconds.append(clock.seconds_an_image(world.actors))
            ratios.append((before + after) / 2 / seconds[-1])
            tell(
                f"{name}: bare {before:.3f} and {after:.3f} s an image, stage {seconds[-1]:.3f}, ratio {ratios[-1]:.3f}"
            )
        bare.close()
        _note(figures, ("efficiency", name), ratios)
        figures["profile"][name] = {"seconds_an_image": round(statistics.median(seconds), 3), **_shares(clock)}
        in_passes = (clock.phases()["encode"] + clock.phases()["guide"]) / world.images / world.actors
        figures["profile"][name]["forward_passes_of_wall_time"] = round(in_passes / seconds[-1], 3)
        processes, threads, batch = bare.way
        figures["bare"][name] = {"processes": processes, "threads": threads, "batch": batch}


def _bf16(world: _World, figures: dict[str, Any]) -> None:
    """The stage in fp32 over the stage in bf16, in turns, and how alike their embeddings are."""
    from benchmarks.bare import Bare, Passes
    from benchmarks.precision import cosines

    name, ratios = "ViT-B-16", []
    for _ in range((world.pairs + 1) // 2):
        slow, fast = world.run(name, "fp32"), world.run(name, "bf16")
        ratios.append(slow.seconds_an_image(world.actors) / fast.seconds_an_image(world.actors))
        tell(f"{name}: fp32 {slow.seconds_an_image(world.actors):.3f} s an image, {ratios[-1]:.2f} times that of bf16")
    _note(figures, "bf16_speedup", ratios)
    figures.setdefault("profile", {})[f"{name} bf16"] = _shares(fast)
    alike = cosines(world.models[name], world.photos)
    figures["bf16_cosine"] = min(alike.values())
    figures["ranges"]["bf16_cosine"] = alike
    bare = Bare(Passes(world.models[name], world.dino, CROPS[name], "bf16"))
    ratio = bare.seconds_an_image(world.images) / fast.seconds_an_image(world.actors)
    figures["bf16_efficiency"] = {name: round(ratio, 3)}
    bare.close()


def _shares(clock: Any) -> dict[str, float]:
    """Each phase's share of the workers' busy seconds."""
    phases = clock.phases()
    return {name: round(value / sum(phases.values()), 4) for name, value in sorted(phases.items())}


def _note(figures: dict[str, Any], name: str | tuple[str, str], values: list[float]) -> None:
    group, key = (figures, name) if isinstance(name, str) else (figures[name[0]], name[1])
    group[key] = round(statistics.median(values), 4)
    label = name if isinstance(name, str) else " ".join(name)
    figures["ranges"][label] = [round(min(values), 4), round(max(values), 4)]


def _start_ray() -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=500_000_000)


def _stop_ray() -> None:
    import ray

    ray.shutdown()


def tell(line: str) -> None:
    """What is going on, for the person who waits."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
