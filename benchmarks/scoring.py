"""The stage score: all methods in one pass against the slowest ones alone, and images a second from shards on disk."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

CLASSES, DESCRIPTIONS, D = 1000, 50, 512
VIEWS = {
    "random": {"kind": "random", "crops": 9},
    "guided": {"kind": "guided", "guide": "random", "crops": 60},
    "squares": {"kind": "squares", "crops": 60},
}
ABLATIONS = [
    {"name": "abs", "label": "abs_raw", "crops": "raw"},
    {"name": "abs", "label": "abs_feature", "crops": "feature"},
    {"name": "abs", "label": "abs_whole", "crops": "whole"},
    {"name": "abs", "label": "abs_mean", "matching": "mean"},
]
TURNS, IMAGES_A_TURN = 3, 16
IMAGES_A_SHARD = 250


def scoring(full: bool = False) -> dict[str, Any]:
    """`all_methods_vs_slowest`, on one thread; `images_per_second` of the stage on Ray, its start included.

    Every method of the registry (the draws of one count as one method) and the ablations of ABS, 1,000 classes of 50
    descriptions, d = 512; 500 images, or 50,000 if `full`. No views count as a view set of their own; `slowest` is the
    slowest method of each. `images_per_second_by_cores`: all methods in actors that have started, one a core.
    `scoring_peak_bytes` is the peak PSS of the stage's processes, for a quarter of the images and all.
    """
    images, cores = 50_000 if full else 500, os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="fieldmark-scoring-") as folder:
        figures = _child("ratio", folder, IMAGES_A_TURN, 1)
        del figures["peak_bytes"]
        pace = {str(count): _child("pace", folder, IMAGES_A_TURN, count) for count in sorted({1, cores})}
        parts = {count: _child("stage", folder, count, cores) for count in (images // 4, images)}
    figures["images_per_second"] = parts[images]["images_per_second"]
    figures["images_per_second_by_cores"] = {count: part["images_per_second"] for count, part in pace.items()}
    figures["scoring_peak_bytes"] = {str(count): part["peak_bytes"] for count, part in parts.items()}
    return figures


def _child(part: str, folder: str, images: int, cores: int) -> dict[str, Any]:
    """A part in a process of its own, so that what one holds does not count as another's memory."""
    from benchmarks.encode import tell
    from benchmarks.growth import SECONDS_BETWEEN_LOOKS, proportional_bytes

    tell(f"scoring: {part}, {images} images, {cores} cores")
    command = [sys.executable, "-m", "benchmarks.scoring", part, folder, str(images), str(cores)]
    child, peak = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), 0.0
    while child.poll() is None:
        peak = max(peak, proportional_bytes(child.pid))
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if child.returncode:
        raise SystemExit(f"benchmarks.scoring: {part} of {images} images failed")
    return json.loads(child.stdout.read()) | {"peak_bytes": int(peak)}


def plan_of_encoded_job(folder: Path, images: int) -> Any:
    """The plan of a job whose images and texts are encoded, as random unit vectors, and of which nothing is scored."""
    from pipeline.job_file import load_job
    from pipeline.plan import make_plan
    from stages.stage import Run

    job = load_job(_write_job(folder, images))
    plan = make_plan(job)
    describe = plan.of("describe")
    run = Run("run", lambda done, rejected: None, lambda: None)
    describe.stage.compute([table for table in describe.tables if table.missing], plan.inputs, run)
    plan = make_plan(job)
    for table in plan.of("encode_text").tables:
        _fill(table, {"vector": (D,)}, np.float32, {"logit_scale": pa.scalar(100.0, pa.float32())})
    for table in plan.of("encode_images").tables:
        view = None if table.plan is None else table.plan[0]
        count = 1 if view is None else view.crops
        columns = {"vectors": (count, D)} | ({"feature_vectors": (count, D)} if view and view.kind == "guided" else {})
        _fill(table, columns, np.float16, {})
    return make_plan(job)


def _write_job(folder: Path, images: int) -> Path:
    from benchmarks.stage import write_job
    from stages.methods import METHODS

    names = [f"class {number}" for number in range(CLASSES)]
    (folder / "classes.txt").write_text("\n".join(names))
    texts = {name: [f"{name} has mark {n}." for n in range(DESCRIPTIONS)] for name in names}
    (folder / "texts.json").write_text(json.dumps(texts))
    for number in range(images):
        (folder / f"{number}.jpg").touch()
    rows = "".join(f"{n}.jpg,{names[n % CLASSES]}\n" for n in range(images))
    (folder / f"images-{images}.csv").write_text("uri,label\n" + rows)
    model = folder / "model"
    model.mkdir(exist_ok=True)  # its weights are hashed and never loaded
    (model / "open_clip_config.json").write_text("{}")
    (model / "open_clip_model.safetensors").write_bytes(b"weights")
    return write_job(
        folder / f"job-{images}.yaml",
        store=f"store-{images}",
        dataset={"kind": "table", "path": f"images-{images}.csv", "classes": "classes.txt"},
        model={"name": f"local-dir:{model}"},
        descriptors={"sentences": {"provider": "file", "path": "texts.json"}},
        views=VIEWS,
        methods=[*METHODS, *ABLATIONS],
    )


def _fill(table: Any, columns: dict[str, tuple[int, ...]], dtype: Any, constants: dict[str, pa.Scalar]) -> None:
    """Rows for all that the table lacks: vectors around a common direction, so that cosines are positive as CLIP's."""
    from stages.encode_images import describe_table
    from storage.schemas import fixed_list

    rng = np.random.default_rng(0)
    table.keeper.create(describe_table(table))
    size = 5000 if len(columns) == 1 and dtype == np.float32 else IMAGES_A_SHARD
    for start in range(0, len(table.missing), size):
        keys = table.missing.slice(start, size)
        rows: dict[str, Any] = {"key": keys}
        for name, shape in columns.items():
            drawn = rng.standard_normal((len(keys), *shape), dtype=np.float32) + np.float32(0.6)
            drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
            rows[name] = fixed_list(drawn.astype(dtype))
            if len(shape) == 2:
                rows[name.replace("vectors", "norms")] = fixed_list(np.ones((len(keys), shape[0]), np.float32))
        rows |= {name: pa.repeat(value, len(keys)) for name, value in constants.items()}
        table.keeper.append(pa.table(rows), "run")


def _ratio(folder: Path, images: int, cores: int) -> dict[str, Any]:
    """One actor's seconds for all methods together, over the sum of the slowest method of each view set alone."""
    tables = plan_of_encoded_job(folder, images).of("score").tables
    keys = tables[0].wanted.to_pylist()
    by_method: dict[str, list[Any]] = {}
    for table in tables:  # the draws of one method are one method's work
        by_method.setdefault(table.plan[0].method.row_name, []).append(table)
    actors = {name: _actor(some, cores) for name, some in by_method.items()} | {"all": _actor(tables, cores)}
    seconds: dict[str, list[float]] = {name: [] for name in actors}
    for turn in range(TURNS + 1):
        for name, actor in actors.items():
            start = time.perf_counter()
            actor.score([{"key": key, "lacks": list(actor.readings)} for key in keys])
            if turn:  # the first one compiles
                seconds[name].append(time.perf_counter() - start)
    sharing: dict[str | None, list[str]] = {}
    for name, some in by_method.items():
        sharing.setdefault(some[0].plan[0].view, []).append(name)
    slowest = [max(names, key=lambda name: statistics.median(seconds[name])) for names in sharing.values()]
    ratios = [seconds["all"][turn] / sum(seconds[name][turn] for name in slowest) for turn in range(TURNS)]
    each = {name: round(1e3 * statistics.median(values) / images, 2) for name, values in seconds.items()}
    return {
        "all_methods_vs_slowest": round(statistics.median(ratios), 3),
        "ranges": {"all_methods_vs_slowest": [round(min(ratios), 3), round(max(ratios), 3)]},
        "slowest": slowest,
        "milliseconds_an_image": each,
    }


def _actor(tables: Sequence[Any], threads: int) -> Any:
    from stages.score import _ScoreActor
    from stages.settings import ScoreSettings

    actor = _ScoreActor({table.name: table.plan[0] for table in tables}, ScoreSettings(), threads, "run")
    actor.setup()
    return actor


def _pace(folder: Path, images: int, cores: int) -> dict[str, Any]:
    """Images a second of that many actors, a process and thread each, which begin together once all are warm."""
    tables = plan_of_encoded_job(folder, images).of("score").tables
    spawn = multiprocessing.get_context("spawn")
    together, seconds = spawn.Barrier(cores), spawn.SimpleQueue()
    actors = [spawn.Process(target=_keep_pace, args=(tables, together, seconds)) for _ in range(cores)]
    for actor in actors:
        actor.start()
    slowest = max(seconds.get() for _ in actors)
    for actor in actors:
        actor.join()
    return {"images_per_second": round(TURNS * images * cores / slowest, 2)}


def _keep_pace(tables: Sequence[Any], together: Any, seconds: Any) -> None:
    actor = _actor(tables, 1)
    rows = [{"key": key, "lacks": list(actor.readings)} for key in tables[0].wanted.to_pylist()]
    actor.score(rows)
    together.wait()
    start = time.perf_counter()
    for _ in range(TURNS):
        actor.score(rows)
    seconds.put(time.perf_counter() - start)


def _stage(folder: Path, images: int, cores: int) -> dict[str, Any]:
    """Images a second of the stage on a Ray of so many cores, an actor on each, from its start to its end."""
    import ray

    from stages.stage import Run

    plan = plan_of_encoded_job(folder, images)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    scoring = plan.of("score")
    start = time.perf_counter()
    scoring.stage.compute(scoring.tables, plan.inputs, Run("run", lambda done, rejected: None, lambda: ray))
    return {"images_per_second": round(images / (time.perf_counter() - start), 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["ratio", "pace", "stage"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("images", type=int)
    parser.add_argument("cores", type=int)
    arguments = parser.parse_args()
    measure = {"ratio": _ratio, "pace": _pace, "stage": _stage}[arguments.part]
    print(json.dumps(measure(arguments.folder, arguments.images, arguments.cores)))
