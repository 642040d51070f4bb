"""The plan: for every stage the tables it keeps under the present settings, what they hold and lack, and why.

Made from the job file, the data set's folder and the store alone; no Ray, no torch, no lancedb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.settings import Job
from stages.describe import Describe
from stages.encode_images import EncodeImages
from stages.encode_text import EncodeText
from stages.evaluate import Evaluate
from stages.manifest import read_manifest
from stages.project import Project
from stages.score import Score
from stages.stage import Inputs, NotKnownYet, Stage, Table
from storage.shards import ShardTable

READ_SPLITS = ("query",)
"""Splits whose images are encoded; `validation` and `support` are for stages that choose or adapt."""


@dataclass(frozen=True)
class StagePlan:
    """A stage and its tables, or why they are not known yet."""

    stage: Stage
    tables: tuple[Table, ...]
    unknown: str = ""

    @property
    def done(self) -> bool:
        return not self.unknown and all(table.complete for table in self.tables)


@dataclass(frozen=True)
class Plan:
    """Every stage in the order in which they run."""

    stages: tuple[StagePlan, ...]
    inputs: Inputs

    def of(self, stage: str) -> StagePlan:
        return next(plan for plan in self.stages if plan.stage.name == stage)

    @property
    def done(self) -> bool:
        return all(plan.done for plan in self.stages)

    @property
    def rejects(self) -> list[dict[str, str]]:
        """Rejected images that are still wanted, once each: key, uri, reason, stage."""
        found: dict[str, dict[str, str]] = {}
        for plan in self.stages:
            for table in plan.tables:
                if table.rejected:
                    found.update(
                        {row["key"]: row for row in table.keeper.rejects().to_pylist() if row["key"] in table.rejected}
                    )
        return [found[key] for key in sorted(found)]


def stages_of(job: Job) -> list[Stage]:
    """The job's stages, each after all that it reads."""
    stages: list[Stage] = [
        Describe(job.descriptors),
        EncodeText(job.model, job.descriptors, job.methods),
        EncodeImages(
            job.model,
            job.precision,
            job.guides,
            job.views,
            job.seeds,
            job.resources.encode,
            READ_SPLITS,
            job.decode,
        ),
        Score(job.methods, job.descriptors, job.seeds, job.score),
        Evaluate(job.evaluate),
        Project(job.methods, job.descriptors),
    ]
    return _ordered(stages)


def _ordered(stages: Sequence[Stage]) -> list[Stage]:
    """Each stage after all that it reads; where that leaves a choice, as they are listed."""
    listed = [stage.name for stage in stages]
    sorter = TopologicalSorter({stage.name: stage.reads for stage in stages})
    sorter.prepare()
    order, ready = [], []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=listed.index)
        name = ready.pop(0)
        sorter.done(name)
        order.append(stages[listed.index(name)])
    return order


def make_plan(job: Job, listed: tuple[pa.Table, Mapping[str, str]] | None = None) -> Plan:
    """Plan a job. Raises ValueError for a data set or descriptor file that does not fit the job.

    `listed` is what `read_manifest` says of its data set, where another plan has just asked; else it is read.
    """
    manifest, names = listed or read_manifest(job.dataset, str(Path(job.store) / "listings"))
    kept: dict[str, tuple[Table, ...]] = {}
    inputs = Inputs(Path(job.store), manifest, names, kept)
    plans = []
    for stage in stages_of(job):
        try:
            kept[stage.name] = tuple(stage.tables(inputs))
        except NotKnownYet as reason:
            plans.append(StagePlan(stage, (), unknown=str(reason)))
        else:
            plans.append(StagePlan(stage, kept[stage.name]))
    return Plan(tuple(plans), inputs)


def why_missing(table: Table, store: Path) -> str:
    """Why a table lacks rows, in words a person understands; empty when it lacks none."""
    if not table.missing:
        return ""
    if not isinstance(table.keeper, ShardTable):
        return "the tables it shows have changed" if table.keeper.bytes() else "not made yet"
    count = len(table.missing)
    if table.keeper.exists and table.keeper.rows():
        return f"{count:,} of {len(table.wanted):,} rows are new or were not reached"
    former = _former_table(table, store)
    if former is None:
        return "not made yet"
    changes = _changes(former, table.ingredients.as_dict())
    return f"{'; '.join(changes) or 'inputs changed'}: starts a new table"


def _former_table(table: Table, store: Path) -> dict[str, Any] | None:
    """What the newest other table of this stage and name was made of."""
    newest, found = 0.0, None
    folder = store / "tables" / table.stage
    for place in folder.iterdir() if folder.is_dir() else ():
        if place.name == table.fingerprint or not (other := ShardTable(str(place))).exists:
            continue
        description, modified = other.description(), other.modified() or 0.0
        if description["name"] == table.name and modified > newest:
            newest, found = modified, description
    return found


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    changes = []
    for name in dict.fromkeys([*old["settings"], *new["settings"]]):
        before, after = old["settings"].get(name), new["settings"].get(name)
        if before != after:
            changes.append(f"{name} {_show(before)} -> {_show(after)}")
    if old["version"] != new["version"]:
        changes.append("the stage's code changed")
    if old["weights"] != new["weights"]:
        changes.append("the model's weights changed")
    for kind in ("rows", "whole"):
        for name in dict.fromkeys([*old[kind], *new[kind]]):
            if old[kind].get(name) != new[kind].get(name):
                changes.append(f"{name} changed")
    return changes


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)
