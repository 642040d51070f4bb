"""Whole jobs on a real Ray, a real LanceDB, real image files and the model that ships with the project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from demo.captions import descriptor
from demo.dataset import MODEL_FOLDER
from demo.render import render
from demo.species import species_of
from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.run import Selection, StageResult, run_job

SPECIES = species_of("test_0")[:6]
IMAGES_A_SPECIES = 5

JOB = """
dataset: {path: images, splits: {query: test}}
model: {name: "local-dir:model"}
descriptors: {marks: {provider: file, path: descriptors.json}}
views:
  random: {kind: random, crops: 3}
  guided: {kind: guided, guide: clip, crops: 4, min_side: 0.3, max_side: 0.7}
methods: [clip, cupl, crops_mean, dnd, abs]
resources: {encode: {batch: 4, actors: ACTORS}}
"""


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world on disk: images of six species, descriptors, the model, a job file. Copy it, do not change it."""
    return write_world(tmp_path_factory.mktemp("rendered"), IMAGES_A_SPECIES, actors="1")


@pytest.fixture
def world(rendered: Path, tmp_path: Path) -> Path:
    """A copy of the small world of a test's own, with nothing computed."""
    return Path(shutil.copytree(rendered, tmp_path / "world"))


def write_world(folder: Path, images_a_species: int, first: int = 0, actors: str = "auto") -> Path:
    """Render images number `first` and on of each species, and put descriptors, model and job file beside them.

    `actors` is the job's `resources.encode.actors`: a start of each takes as long as encoding a hundred such images.
    """
    for species in SPECIES:
        place = folder / "images" / "test" / species.name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + images_a_species):
            picture, _ = render(species, f"end to end {number}")
            picture.save(place / f"{number:03d}.jpg", quality=92)
    marks = {species.name: [descriptor(mark) for mark in species.marks] for species in SPECIES}
    (folder / "descriptors.json").write_text(json.dumps(marks))
    (folder / "job.yaml").write_text(JOB.replace("ACTORS", actors))
    if not (folder / "model").exists():
        shutil.copytree(MODEL_FOLDER, folder / "model")
    return folder


class Silent:
    """A watcher that only remembers."""

    def stage_started(self, stage: str, units: int | None, present: int) -> None: ...

    def advanced(self, stage: str, done: int, rejected: int) -> None: ...

    def noted(self, stage: str, text: str) -> None: ...

    def announced(self, text: str) -> None: ...

    def stage_ended(self, stage: str, result: StageResult) -> None: ...

    def closed(self) -> None: ...


def run(folder: Path, *overrides: str, selection: Selection = Selection()) -> dict[str, int]:  # noqa: B008
    """Run the folder's job; returns rows computed by stage."""
    job = load_job(folder / "job.yaml", overrides)
    return {result.stage: result.computed for result in run_job(job, Silent(), Cluster(), selection)}
