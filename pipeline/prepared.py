"""What a call of the command line starts from: the jobs of a job file with their plans, and which variant is meant."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.job_error import JobError
from pipeline.job_file import Variant, load_jobs
from pipeline.plan import Plan, make_plan
from pipeline.settings import Job


@dataclass(frozen=True)
class Prepared:
    """A job of a file, and its plan."""

    file: Path
    variant: Variant
    plan: Plan
    overrides: tuple[str, ...] = ()
    """what --set changed in the file"""
    chosen: bool = False
    """whether it was asked for by its label, and the sweep's other variants are not meant"""

    @property
    def job(self) -> Job:
        return self.variant.job

    @property
    def label(self) -> str | None:
        return self.variant.label

    @property
    def title(self) -> str:
        """The column of tables: a variant's label, else the job's name."""
        return self.label or self.job.name

    def command(self, until: str | None = None) -> str:
        """What computes it; for a variant alone where `until` names a stage that its sweep would leave out."""
        only_this = self.label is not None and (self.chosen or until is not None)
        words = ["--variant", self.label] if only_this else []
        if self.label is not None and until is not None:
            words += ["--until", until]
        return self.call("run", *words)

    def call(self, command: str, *words: str) -> str:
        """A call of the command line about this file as it is now, ready for a shell."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        return shlex.join(["fieldmark", command, str(self.file), *words, *sets])


class Listings:
    """Plans of several jobs made at one time, which list each data set once."""

    def __init__(self) -> None:
        self._plans: list[tuple[Job, Plan]] = []

    def plan(self, job: Job) -> Plan:
        """The job's plan. Raises what `make_plan` raises."""
        for other, known in self._plans:
            if (other.dataset, other.store) == (job.dataset, job.store):
                return make_plan(job, known.listed)
        self._plans.append((job, make_plan(job)))
        return self._plans[-1][1]


def prepare_jobs(file: Path, overrides: Sequence[str]) -> list[Prepared]:
    """All jobs of a file. Raises JobError for whatever is wrong with it, the images or the descriptors."""
    found, listings = [], Listings()
    for variant in load_jobs(file, overrides):
        try:
            found.append(Prepared(file, variant, listings.plan(variant.job), tuple(overrides)))
        except ValueError as error:
            place = f"{file}: " if variant.label is None else f"{file}: sweep ({variant.label}): "
            raise JobError(f"{place}{error}") from None
    return found


def prepare_one(file: Path, overrides: Sequence[str], label: str | None) -> Prepared:
    """The only job of a file, or the variant of its sweep that is called `label`. Raises JobError for neither."""
    jobs = prepare_jobs(file, overrides)
    if label is None and jobs[0].label is not None:
        raise JobError(f"{file}: has a sweep; say which variant is meant with --variant, one of {_labels(jobs)}")
    return jobs[0] if label is None else choose_variant(jobs, label)


def choose_variant(jobs: Sequence[Prepared], label: str) -> Prepared:
    """The variant of this label. Raises JobError that names those there are."""
    for each in jobs:
        if each.label == label:
            return replace(each, chosen=True)
    if jobs[0].label is None:
        raise JobError(f"--variant {label}: {jobs[0].file} has no sweep, and so no variants")
    raise JobError(f"--variant {label}: {jobs[0].file} has no such variant; there are {_labels(jobs)}")


def find_twins(jobs: Sequence[Prepared]) -> list[list[str]]:
    """Labels of variants that make the same predictions, as far as is known: nothing reads what was swept."""
    same: dict[tuple[str, ...], list[str]] = {}
    for each in jobs:
        known = not any(each.plan.of(stage).unknown for stage in ("score", "test_time"))
        if each.label is not None and known:
            same.setdefault(tuple(table.fingerprint for table in each.plan.predictions), []).append(each.label)
    return [labels for labels in same.values() if len(labels) > 1]


def _labels(jobs: Sequence[Prepared]) -> str:
    return ", ".join(repr(each.label) for each in jobs)
