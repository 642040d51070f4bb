"""One plan of a job whose images are listed in an Arrow file beside it, timed in a process of its own."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.job_file import load_job
from pipeline.plan import make_plan


def measure(folder: Path) -> dict[str, Any]:
    """`seconds` of the first plan of the process and of one made `again`, `peak_bytes` of memory, counts by table."""
    with pa.OSFile(str(folder / "manifest.arrow")) as file:
        manifest = pa.ipc.open_file(file).read_all()
    names = {name: name for name in sorted(manifest["class"].unique().to_pylist())}
    job, seconds = load_job(folder / "job.yaml"), []
    for _ in range(2):
        start = time.perf_counter()
        plan = make_plan(job, listed=(manifest, names))
        counts = {
            f"{table.stage}/{table.name}": (len(table.wanted), table.present, len(table.missing), len(table.rejected))
            for stage in plan.stages
            for table in stage.tables
        }
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[0], "again": seconds[1], "peak_bytes": _peak_bytes(), "tables": counts}


def _peak_bytes() -> int:
    """The largest resident memory of this process so far; what `getrusage` says includes the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    print(json.dumps(measure(parser.parse_args().folder)))
