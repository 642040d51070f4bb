"""Two runs at once on one store: they keep out of each other's way, wait, or work side by side."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import stored_predictions
from pipeline.run import Selection, run_job
from pipeline.store_held import StoreHeld
from storage.leases import living_runs
from storage.records import read_records

from .conftest import IMAGES_A_SPECIES, SPECIES, Silent
from .test_killed_run import start, wait_for_shards

IMAGES = len(SPECIES) * IMAGES_A_SPECIES


class Listening(Silent):
    """Remembers what was announced, and how many runs were alive when stages started; `react` hears it, too."""

    def __init__(self, store: str, react: Callable[[], None] = lambda: None) -> None:
        self.store, self.react = store, react
        self.texts: list[str] = []
        self.living: list[int] = []

    def announced(self, text: str) -> None:
        self.texts.append(text)
        self.react()

    def stage_started(self, stage: str, units: int | None, present: int) -> None:
        self.living.append(len(living_runs(self.store)))


def test_a_second_run_is_refused_or_waits_and_a_job_that_shares_no_missing_table_runs_beside(world: Path):
    job = load_job(world / "job.yaml")
    marks = json.loads((world / "descriptors.json").read_text())
    (world / "others.json").write_text(json.dumps({bird: ["a bird", *said] for bird, said in marks.items()}))
    process = start(world)
    beside = Listening(job.store)
    waiting = Listening(job.store, lambda: process.send_signal(signal.SIGCONT))
    try:
        wait_for_shards(world, process)
        process.send_signal(signal.SIGSTOP)  # it stands still, alive, with what it holds, until somebody waits for it
        with pytest.raises(StoreHeld, match=rf"encode_images/whole.* by job job on .* \(process {process.pid}\) since"):
            run_job(job, Silent(), Cluster())
        other = load_job(world / "job.yaml", ["descriptors.marks.path=others.json", "name=other", "store=runs/job"])
        (described,) = run_job(other, beside, Cluster(), Selection(only="describe"))
        waited = run_job(job, waiting, Cluster(), Selection(wait=True, until="evaluate"))
        _, said = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert (described.computed, beside.living) == (len(SPECIES), [2])
    assert waiting.texts[0].startswith("waiting: ")
    assert {result.computed for result in waited} == {0}, "the other run has computed it all"
    for table in make_plan(job).of("encode_images").tables:
        shards = Counter(key for path in Path(table.keeper.folder).glob("*.arrow") for key in keys_of(path))
        assert set(shards.values()) == {1}
        assert len(shards) == IMAGES
    assert len(stored_predictions(make_plan(job), (), top_k=1)) == 5 * IMAGES
    assert {record["ending"] for record in read_records(job.store)} == {"done"}


def keys_of(shard: Path) -> list[str]:
    import pyarrow as pa

    with pa.memory_map(str(shard)) as file:
        return pa.ipc.open_file(file).read_all()["key"].to_pylist()
