"""What a whole job costs as it grows: memory from 500 to 5,000 images, seconds an image from 1,000 to 5,000."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

DEMO = Path(__file__).resolve().parent.parent / "demo"
SIZES = (500, 1000, 5000)
OBJECT_STORE = 1_000_000_000
"""Room for what is decoded ahead: in a smaller one photographs are spilled to disk, whose speed is then measured."""
SECONDS_BETWEEN_LOOKS = 0.5


def growth(folder: Path) -> dict[str, Any]:
    """`rss_growth`: peak PSS of all processes of the job, 5,000 images over 500, less 1; `per_image_growth`: seconds an
    image, 5,000 images over 1,000, less 1."""
    from benchmarks.encode import tell

    peaks, seconds = {}, {}
    for count in SIZES:
        peaks[count], seconds[count] = _run(folder / str(count), count)
        tell(f"{count} images: peak {peaks[count] / 1e9:.2f} GB, {seconds[count] * 1e3:.1f} ms an image")
    return {
        "rss_growth": round(peaks[5000] / peaks[500] - 1, 4),
        "per_image_growth": round(seconds[5000] / seconds[1000] - 1, 4),
        "peak_bytes": {str(count): int(peak) for count, peak in peaks.items()},
        "seconds_an_image": {str(count): round(value, 5) for count, value in seconds.items()},
    }


def _run(folder: Path, count: int) -> tuple[float, float]:
    """Peak PSS in bytes of a job's processes, and its seconds an image of encode_images in steady state."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.growth", str(folder), str(count)]
    with open(folder / "errors.txt", "w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, proportional_bytes(child.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"the job of {count} images failed:\n{errors.read()[-2000:]}")
    return peak, json.loads(child.stdout.read())["seconds_an_image"]


def proportional_bytes(pid: int) -> float:
    """PSS of a process and all it started: pages that several share are counted once."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it ended meanwhile
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return float(total)


def _job(folder: Path, count: int) -> dict[str, Any]:
    """Run the demo's model and methods on so many photographs of mixed sizes, all stages."""
    import ray

    from benchmarks.photos import write_mixed_photos
    from benchmarks.stage import Clock, write_job
    from pipeline.cluster import Cluster
    from pipeline.job_file import load_job
    from pipeline.run import run_job

    photos = write_mixed_photos(folder, count)
    (folder / "marks.json").write_text(json.dumps({f"bird {n}": [f"A bird of kind {n}."] for n in range(32)}))
    job = write_job(
        folder / "job.yaml",
        store="store",
        dataset={"path": str(photos), "classes": "classes.txt"},
        model={"name": f"local-dir:{DEMO / 'model'}"},
        descriptors={"marks": {"provider": "file", "path": "marks.json"}},
        views={
            "random": {"kind": "random", "crops": 9},
            "guided": {"kind": "guided", "guide": "clip", "crops": 16},
        },
        resources={"encode": {"gpus": 0}},
    )
    (folder / "classes.txt").write_text("".join(f"bird {n}\n" for n in range(32)))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_STORE)
    clock = Clock()
    run_job(load_job(job), clock, Cluster())
    return {"seconds_an_image": clock.seconds_an_image(os.cpu_count() or 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    print(json.dumps(_job(arguments.folder, arguments.count)))
