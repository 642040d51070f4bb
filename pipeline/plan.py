"""The plan: for every stage the tables it keeps under the present settings, what they hold and lack, and why.

Made from the job file, the data set's folder and the store alone; no Ray, no torch, no lancedb.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

import pyarrow as pa

from pipeline.settings import Job
from stages.build_caches import BuildCaches
from stages.describe import Describe
from stages.descriptor_settings import OpenAIDescriptors
from stages.encode_images import EncodeImages
from stages.encode_text import EncodeText
from stages.evaluate import Evaluate
from stages.manifest import read_manifest
from stages.project import Project
from stages.score import Score
from stages.similar_classes import SimilarClasses
from stages.stage import Inputs, NotKnownYet, Stage, Table
from stages.test_time import AtTestTime
from stages.tune import Tune

OF_SOME_JOBS = ("similar_classes", "build_caches", "tune", "test_time")
"""Stages that keep no tables, and are not spoken of, in a job without methods or prompts that need them."""


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

    @property
    def listed(self) -> tuple[pa.Table, Mapping[str, str]]:
        """What the data set was found to be, for another plan of it that is made at the same time."""
        return self.inputs.manifest, self.inputs.names

    def of(self, stage: str) -> StagePlan:
        return next(plan for plan in self.stages if plan.stage.name == stage)

    @property
    def done(self) -> bool:
        return all(plan.done for plan in self.stages)

    @property
    def predictions(self) -> list[Table]:
        """The tables of predictions, of score and of test_time. Raises NotKnownYet where a stage is not known yet."""
        return [table for name in ("score", "test_time") for table in self.inputs.tables(name)]

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
        SimilarClasses(job.model, _similar_wanted(job)),
        Describe(job.descriptors, job.methods, job.describe, job.model.name),
        EncodeText(job.model, job.descriptors, job.methods),
        EncodeImages(
            job.model,
            job.precision,
            job.guides,
            job.views,
            job.seeds,
            job.resources.encode,
            job.methods,
            job.decode,
        ),
        BuildCaches(job.methods, job.seeds),
        Tune(job.methods, job.seeds),
        Score(job.seeds, job.score),
        AtTestTime(job.methods, job.seeds, job.score),
        Evaluate(job.evaluate),
        Project(job.methods, job.descriptors, job.project, job.name),
    ]
    return _ordered(stages)


def _similar_wanted(job: Job) -> bool:
    """Whether a set that some method reads asks a language model about similar classes."""
    read = {getattr(method, "descriptors", None) for method in job.methods}
    sets = [settings for name, settings in job.descriptors.items() if name in read]
    return any(isinstance(settings, OpenAIDescriptors) and settings.asks_about_similar for settings in sets)


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

    `listed` is what `read_manifest` says of its data set, where another plan has just asked (`Plan.listed`); else it is
    read. What is remembered of shards makes a plan that is made again cheap, listing a data set never is.
    """
    manifest, names = listed or read_manifest(job.dataset, os.path.join(job.store, "listings"))
    kept: dict[str, tuple[Table, ...]] = {}
    inputs = Inputs(job.store, manifest, names, kept)
    plans = []
    for stage in stages_of(job):
        try:
            kept[stage.name] = tuple(stage.tables(inputs))
        except NotKnownYet as reason:
            plans.append(StagePlan(stage, (), unknown=str(reason)))
        else:
            plans.append(StagePlan(stage, kept[stage.name]))
    return Plan(tuple(plans), inputs)
