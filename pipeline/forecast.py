"""What a run would take: rows, forward passes, bytes, and time by what former runs of the store took.

Time follows a stage's `work`: what most decides how long it computes. Of a former run the start (Ray, models, kernels)
is counted apart, so that a run of ten images does not foretell days for a million.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.durations import tell_duration, tell_moment
from pipeline.plan import Plan
from pipeline.settings import Job
from stages.stage import Table
from stages.vision.names import CONFIG, FOLDER, HUB, architecture_config
from storage.shards import ShardTable

RUNS_LOOKED_AT = 8
"""Newest runs of a kind that a forecast goes by."""
SMALL_SHARE = 0.01
"""A run that did less than this share of what is to do is called a small one."""
KEY_BYTES = 64
"""About what the key of an image takes: its path and version."""


@dataclass(frozen=True)
class Forecast:
    """What one stage would take; null where it cannot be told, and `basis` says why, or what it goes by."""

    stage: str
    rows: int | None
    forward_passes: int | None
    """of encode_images: the whole image and its crops, each once; passes of a guide's own model are not counted"""
    bytes: int | None
    seconds: float | None
    basis: str


def work(stage: str, tables: Sequence[Table]) -> int:
    """How much the missing rows of these tables are, in what decides a stage's time.

    encode_images: forward passes; encode_text: texts; score: images x methods; project: images and crops that it
    shows; else rows.
    """
    return sum(_work_a_row(table) * len(table.missing) for table in tables if table.stage == stage)


def forecast(plan: Plan, job: Job, rows: Sequence[Mapping[str, Any]], records: Sequence[Any]) -> list[Forecast]:
    """A forecast a stage that has anything to do, in the order of the plan.

    `rows` are those of `status` that a run is about: stage, table (None where it is not known yet) and how many rows
    are missing, which may be more than the plan says: some are forced. `records` are those of the store's runs, newest
    last.
    """
    missing = {(row["stage"], row["table"]): row["missing"] for row in rows}
    found = []
    for each in plan.stages:
        name = each.stage.name
        if (name, None) in missing:
            found.append(Forecast(name, None, None, None, None, each.unknown))
        if to_do := [(table, count) for table in each.tables if (count := missing.get((name, table.name), 0))]:
            found.append(_forecast_stage(name, to_do, each.tables, job, records))
    return found


def together(forecasts: Iterable[Forecast]) -> list[Forecast]:
    """Forecasts of several jobs that run one after another, added up by stage; null where one of them is."""
    stages: dict[str, list[Forecast]] = {}
    for each in forecasts:
        stages.setdefault(each.stage, []).append(each)
    return [
        Forecast(
            name,
            *(total(getattr(each, field) for each in some) for field in ("rows", "forward_passes", "bytes", "seconds")),
            max(some, key=lambda each: each.rows or 0).basis,
        )
        for name, some in stages.items()
    ]


def total(numbers: Iterable[float | None]) -> float | None:
    """The sum of some numbers; None where one of them is not known."""
    listed = list(numbers)
    return None if None in listed else sum(listed)


def _forecast_stage(
    name: str, to_do: Sequence[tuple[Table, int]], all_tables: Sequence[Table], job: Job, records: Sequence[Any]
) -> Forecast:
    units = sum(_work_a_row(table) * rows for table, rows in to_do)
    sizes = [(_bytes_a_row(table, all_tables, job), rows) for table, rows in to_do]
    seconds, basis = _time(name, units, [table for table, _ in to_do], job, records)
    return Forecast(
        name,
        sum(rows for _, rows in to_do),
        units if name == "encode_images" else None,
        total(None if size is None else round(size * rows) for size, rows in sizes),
        seconds,
        basis,
    )


def _work_a_row(table: Table) -> int:
    if table.stage == "encode_images":
        return 1 if table.plan is None else table.plan[0].crops
    if table.stage == "project":  # three rows, each the digest of what one of its tables shows
        return _shown(table) // len(table.wanted) + 1
    return 1


def _shown(table: Table) -> int:
    views = table.plan.views.values()
    return table.plan.whole.present + sum(view.present * view.plan[0].crops for view in views)


def _time(name: str, units: int, tables: Sequence[Table], job: Job, records: Sequence[Any]) -> tuple[float | None, str]:
    """Seconds for so many units, and what they go by; None where no run can say."""
    runs = [run for record in records for run in _runs_of(name, record)]
    if not runs:
        return None, "no run of this store to go by"
    alike = [run for run in runs if _is_alike(name, run.settings, tables, job)]
    if not alike:
        what = "these methods" if name == "score" else f"model {job.model.name} in {job.precision}"
        return None, f"no run of this store with {what} to go by"
    newest = [run for run in alike if run.hardware == alike[-1].hardware][-RUNS_LOOKED_AT:]
    largest = max(newest, key=lambda run: run.work)
    start, each = _pace(newest)
    basis = f"by the run of {tell_moment(largest.started)}"
    if start >= 1:
        basis += f", {tell_duration(start)} of it to start"
    if largest.work < SMALL_SHARE * units:
        basis += "; that was a small one, so this is a guess"
    return start + each * units, basis


@dataclass(frozen=True)
class _StageRun:
    """What a record says of one stage."""

    work: int
    seconds: float
    busy: float
    """seconds by phase, summed over workers; 0 where the stage does not measure them"""
    started: str
    settings: Mapping[str, Any]
    hardware: Mapping[str, Any]


def _runs_of(name: str, record: Mapping[str, Any]) -> Iterable[_StageRun]:
    """The stage in this run, if it computed anything."""
    for stage in record["stages"]:
        if stage["stage"] == name and stage["computed"] > 0 and stage.get("work", 0) > 0:
            busy = sum(stage["phases"].values())
            told = record["started"], record["settings"], record["hardware"]
            yield _StageRun(stage["work"], stage["seconds"], busy, *told)


def _is_alike(name: str, settings: Mapping[str, Any], tables: Sequence[Table], job: Job) -> bool:
    """Whether a run with these settings tells how long this job's stage takes: the same model, or the same methods."""
    if name in ("encode_images", "encode_text"):
        model, gpus = settings["model"], settings["resources"]["encode"]["gpus"]
        same = (job.model.name, job.model.precision, job.resources.encode.gpus)
        return (model["name"], model["precision"], gpus) == same
    if name in ("score", "tune", "test_time"):
        return {table.plan[0].method.name for table in tables} <= {method["name"] for method in settings["methods"]}
    return True


def _pace(runs: Sequence[_StageRun]) -> tuple[float, float]:
    """Seconds to start, and seconds a unit of work.

    Where workers measured their phases, the start is what these leave of the largest run (nothing where several workers
    together were busy for longer than it took); else what a line through the smallest and the largest run says, if one
    is at least twice the other. Failing both, all of its time counts as work: never too little, for a small run.
    """
    smallest, largest = min(runs, key=lambda run: run.work), max(runs, key=lambda run: run.work)
    computing = largest.seconds
    if largest.busy:
        computing = min(largest.busy, largest.seconds)
    elif largest.work >= 2 * smallest.work and largest.seconds > smallest.seconds:
        slope = (largest.seconds - smallest.seconds) / (largest.work - smallest.work)
        computing = min(slope * largest.work, largest.seconds)
    return largest.seconds - computing, computing / largest.work


def _bytes_a_row(table: Table, all_tables: Sequence[Table], job: Job) -> float | None:
    """By the table's own rows, else by what its columns are, else by another table of the stage."""
    if not isinstance(table.keeper, ShardTable):
        return None
    if rows := table.keeper.rows():
        return table.keeper.bytes() / rows
    size = _embedding_size(job.model.name)
    if table.stage == "encode_text" and size is not None:
        return 4 * size + 2 * KEY_BYTES
    if table.stage == "encode_images" and size is not None:
        return _bytes_of_features(table, size)
    beside = [other.keeper for other in all_tables if isinstance(other.keeper, ShardTable) and other.keeper.rows()]
    return beside[0].bytes() / beside[0].rows() if beside and table.stage != "encode_images" else None


def _bytes_of_features(table: Table, size: int) -> int:
    """Unit vectors in fp16, norms in fp32, and four whole numbers a box, of the image or of each of its crops."""
    if table.plan is None:
        return 2 * KEY_BYTES + 2 * size + 16
    view, crop = table.plan[0], 2 * size + 4 + 16
    return KEY_BYTES + view.crops * crop * (2 if getattr(view, "feature_crops", False) else 1)


def _embedding_size(name: str) -> int | None:
    """Numbers of a feature, by the model's configuration; None for one that would have to be downloaded first."""
    if name.startswith(HUB):
        return None
    path = Path(name.removeprefix(FOLDER)) / CONFIG if name.startswith(FOLDER) else architecture_config(name)
    settings = json.loads(path.read_text(encoding="utf-8"))
    return settings.get("model_cfg", settings).get("embed_dim")
