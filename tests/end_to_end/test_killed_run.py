"""A run that is killed without warning goes on where it was."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import stored_predictions
from pipeline.run import Selection
from storage.records import read_records

from .conftest import IMAGES_A_SPECIES, SPECIES, run

IMAGES = len(SPECIES) * IMAGES_A_SPECIES


def encoded(folder: Path) -> dict[str, int]:
    """Rows by table of encode_images, counted in the shards themselves."""
    plan = make_plan(load_job(folder / "job.yaml"))
    return {table.name: table.keeper.rows() for table in plan.of("encode_images").tables}


def start(folder: Path) -> subprocess.Popen:
    """The command line in a session of its own, one image a batch."""
    command = [sys.executable, "run_pipeline.py", "run", str(folder / "job.yaml")]
    command += ["--set", "resources.encode.batch=1"]
    here = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=here, start_new_session=True, stderr=subprocess.PIPE, text=True)


def wait_for_shards(folder: Path, process: subprocess.Popen, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if len(list((folder / "runs").rglob("encode_images/*/*.arrow"))) >= 3:
            return
        time.sleep(0.01)
    raise AssertionError(f"no shards appeared: {process.stderr.read() if process.poll() is not None else ''}")


def kill(process: subprocess.Popen) -> None:
    """Kill the driver as a crash would, and wait until its actors, which share its fate, can write no more."""
    family = {pid for pid in descendants(process.pid) if b"Actor" in command_line(pid)}
    assert family
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while time.monotonic() < until and any(alive(pid) for pid in family):
        time.sleep(0.05)
    assert not any(alive(pid) for pid in family)


def descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


def command_line(pid: int) -> bytes:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_run_resumes_without_encoding_an_image_twice(world: Path, ray: object):
    process = start(world)
    try:
        wait_for_shards(world, process)
    finally:
        kill(process)
    before = encoded(world)
    assert 0 < sum(before.values()) < 3 * IMAGES, "the kill came in the middle"
    counts = run(world, selection=Selection(until="score"))
    assert counts["encode_images"] == 3 * IMAGES - sum(before.values())
    assert encoded(world) == dict.fromkeys(before, IMAGES)
    predicted = stored_predictions(make_plan(load_job(world / "job.yaml")), (), top_k=1)
    assert len(predicted) == 5 * IMAGES
    records = read_records(str(world / "runs" / "job"))
    assert [record["ending"] for record in records] == ["killed", "done"]
    assert not list((world / "runs").rglob(".tmp-*"))


def test_ctrl_c_twice_stops_cleanly_and_says_how_to_go_on(world: Path):
    process = start(world)
    wait_for_shards(world, process)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Go on with: fieldmark run" in said
    assert "Traceback" not in said
    assert not list((world / "runs").rglob(".tmp-*"))
    assert not list((world / "runs").rglob("leases/*"))
    assert [record["ending"] for record in read_records(str(world / "runs" / "job"))] == ["interrupted"]
