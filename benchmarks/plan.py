"""python -m benchmarks.plan: what it costs to find out what there is to do, and to keep account of it.

Prints one JSON document on standard output; what it is doing goes to standard error.

`noop_seconds`, `status_seconds`: `fieldmark run` and `fieldmark status` of a finished job with nothing to do, wall time
beyond that of the bare interpreter (`python -c pass`), medians of turns.

`plan_1m_seconds`, `plan_1m_gb`: the whole plan, with what every table holds and lacks, of clip, dnd and abs over
1,000,000 labelled images of 1,000 classes, after 100,000 of them came in: encode_images' three tables hold the others
in 2,000 shards each, score's three in 1,800, all on disk and none seen before. Peak memory of its process. The images
are given as a listing (a million files take as long as their file system does); rows are a key and a number.

`sink_overhead`: of encode_images' time with the demo's model and guided views, the share that goes into two plans of
the job, into the rows to compute, and into writing shards, as if all workers waited for the driver.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.encode import tell

DEMO = Path(__file__).resolve().parent.parent / "demo"
FIELDMARK = ["-c", "from pipeline.cli import main; main()"]
TURNS = 7
PHOTOGRAPHS = 256
IMAGES, CLASSES, PRESENT = 1_000_000, 1000, 0.9
SHARDS = {"encode_images": 2000, "score": 1800}
"""Shards a table; batches of other sizes, as the two stages have them."""


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where images and stores lie (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldmark-plan-") as temporary:
        folder = arguments.folder or Path(temporary)
        print(json.dumps(finished_job(folder / "small") | million(folder / "million"), indent=1))


def finished_job(folder: Path, photographs: int = PHOTOGRAPHS, turns: int = TURNS) -> dict[str, float]:
    """`noop_seconds`, `status_seconds` and `sink_overhead` of a small job, which is run first."""
    from benchmarks.photos import write_photos
    from benchmarks.stage import write_job

    folder.mkdir(parents=True, exist_ok=True)
    write_photos(folder, photographs)
    (folder / "classes.txt").write_text("jay\nwren\n")
    (folder / "marks.json").write_text(json.dumps({"jay": ["a crest"], "wren": ["a cocked tail"]}))
    job = write_job(
        folder / "job.yaml",
        dataset={"path": "photos", "classes": "classes.txt"},
        model={"name": f"local-dir:{DEMO / 'model'}"},
        descriptors={"marks": {"provider": "file", "path": "marks.json"}},
        views={"guided": {"kind": "guided", "guide": "clip", "crops": 16}},
        methods=["clip", {"name": "abs", "views": "guided"}],
        resources={"encode": {"gpus": 0}},
    )
    before = account_seconds(job)
    tell(f"a job of {photographs} photographs")
    stages = {stage["stage"]: stage for stage in _fieldmark("run", str(job), "--json")["stages"]}
    driver = before + account_seconds(job)
    bare, noop, status = [], [], []
    for _ in range(turns):
        bare.append(_seconds("-c", "pass"))
        noop.append(_seconds(*FIELDMARK, "run", str(job)))
        status.append(_seconds(*FIELDMARK, "status", str(job)))
    done = _fieldmark("run", str(job), "--json")["stages"]
    if any(stage["computed"] for stage in done):
        raise SystemExit(f"a finished job computed something again: {done}")
    tell(f"interpreter {min(bare):.2f} s, run {min(noop):.2f} to {max(noop):.2f} s, status {min(status):.2f} s at best")
    return {
        "noop_seconds": round(statistics.median(noop) - statistics.median(bare), 3),
        "status_seconds": round(statistics.median(status) - statistics.median(bare), 3),
        "sink_overhead": round(sink_overhead(stages["encode_images"]["phases"], driver, os.cpu_count() or 1), 4),
    }


def account_seconds(job_file: Path) -> float:
    """Seconds that the driver takes for a plan of the job, and to make the rows that encode_images is to compute."""
    from pipeline.job_file import load_job
    from pipeline.plan import make_plan
    from stages.encode_images import _rows_lacking

    job = load_job(job_file)
    start = time.perf_counter()
    plan = make_plan(job)
    tables = plan.of("encode_images").tables
    lacking = [table for table in tables if table.missing]
    if lacking:
        list(_rows_lacking(lacking, plan.inputs.manifest))
    return time.perf_counter() - start


def sink_overhead(phases: dict[str, float], driver: float, workers: int) -> float:
    """The share of writing, and of the driver's seconds while all workers wait, in the seconds of all workers."""
    waiting = workers * driver
    return (phases["write"] + waiting) / (sum(phases.values()) + waiting)


def million(folder: Path, images: int = IMAGES, shards: dict[str, int] = SHARDS) -> dict[str, float]:
    """`plan_1m_seconds` and `plan_1m_gb`."""
    tell(f"{images:,} images, shards of {PRESENT:.0%} of them")
    fill_store(folder, images, shards)
    command = [sys.executable, "-m", "benchmarks.plan_million", str(folder)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    for table, counts in found["tables"].items():
        tell(f"  {table}: wanted {counts[0]:,}, present {counts[1]:,}, missing {counts[2]:,}")
    tell(f"{found['seconds']:.2f} s, again {found['again']:.2f} s, peak {found['peak_bytes'] / 1e9:.2f} GB")
    return {"plan_1m_seconds": round(found["seconds"], 3), "plan_1m_gb": round(found["peak_bytes"] / 1e9, 3)}


def fill_store(folder: Path, images: int, shards: dict[str, int]) -> None:
    """A job file, its images as an Arrow file, and a store with shards of nine tenths of them in every table."""
    from benchmarks.stage import write_job
    from pipeline.job_file import load_job
    from pipeline.plan import make_plan
    from stages.stage import Run

    (folder / "model").mkdir(parents=True)  # its weights are hashed and never loaded
    (folder / "model" / "open_clip_config.json").write_text("{}")
    (folder / "model" / "open_clip_model.safetensors").write_bytes(b"weights")
    (folder / "photos").mkdir()
    names = {f"class {number:03}": f"class {number:03}" for number in range(CLASSES)}
    (folder / "marks.json").write_text(json.dumps({name: [f"A mark of {name}.", "A beak."] for name in names}))
    job = load_job(
        write_job(
            folder / "job.yaml",
            dataset={"path": "photos"},
            model={"name": f"local-dir:{folder / 'model'}"},
            descriptors={"marks": {"provider": "file", "path": "marks.json"}},
            views={
                "random": {"kind": "random", "crops": 9},
                "guided": {"kind": "guided", "guide": "clip", "crops": 60},
            },
            methods=["clip", "dnd", "abs"],
        )
    )
    manifest = _manifest(images, list(names))
    with pa.OSFile(str(folder / "manifest.arrow"), "wb") as file, pa.ipc.new_file(file, manifest.schema) as writer:
        writer.write_table(manifest)
    plan = make_plan(job, listed=(manifest, names))
    run = Run("benchmark", lambda done, rejected: None, lambda: None)
    plan.of("describe").stage.compute(plan.of("describe").tables, plan.inputs, run)
    plan = make_plan(job, listed=(manifest, names))
    present = manifest["key"].slice(0, int(PRESENT * images))
    for stage, count in shards.items():
        _fill(plan.of(stage).tables, present, count)


def _manifest(images: int, names: Sequence[str]) -> pa.Table:
    """Labelled images, as a folder of photographs lists them; of every class the same number."""
    from stages.manifest import SCHEMA

    a_class = -(-images // len(names))
    ids = [f"{names[number // a_class]}/image_{number:07}.jpg" for number in range(images)]
    versions = [f"{100_000 + number}-17{number:017}" for number in range(images)]
    return pa.table(
        {
            "key": [f"{one}@{version}" for one, version in zip(ids, versions, strict=True)],
            "id": ids,
            "version": versions,
            "uri": [f"/data/photographs/{one}" for one in ids],
            "split": ["query"] * images,
            "class": [names[number // a_class] for number in range(images)],
        },
        SCHEMA,
    )


def _fill(tables: Sequence[Any], present: pa.ChunkedArray, count: int) -> None:
    """These keys in so many shards of the first table, and the same files in the other tables."""
    from stages.encode_images import describe_table

    for table in tables:
        table.keeper.create(describe_table(table))
    size = -(-len(present) // count)
    for start in range(0, len(present), size):
        keys = present.slice(start, size)
        rows = pa.table({"key": keys, "seconds": pa.repeat(pa.scalar(0.1, pa.float32()), len(keys))})
        name = tables[0].keeper.append(rows, "benchmark")
        for table in tables[1:]:
            os.link(os.path.join(tables[0].keeper.folder, name), os.path.join(table.keeper.folder, name))


def _seconds(*arguments: str) -> float:
    """How long a call of the interpreter takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def _fieldmark(*arguments: str) -> Any:
    """What a call of the command line prints as JSON."""
    done = subprocess.run([sys.executable, *FIELDMARK, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"fieldmark {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
