"""What a call of the command line starts from: the jobs of a job file with their plans, and which variant is meant."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.job_file import JobError, Variant, load_jobs
from pipeline.plan import Plan, make_plan
from pipeline.settings import Job


@dataclass(frozen=True)
class Prepared:
    """A job of a file, and its plan."""

    file: Path
    variant: Variant
    plan: Plan

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
        """What computes it; for a variant alone, where `until` names a stage that its sweep would leave out."""
        words = ["fieldmark", "run", str(self.file)]
        if self.label is not None and until is not None:
            words += ["--variant", shlex.quote(self.label), "--until", until]
        return " ".join(words)


def prepare_jobs(file: Path, overrides: Sequence[str]) -> list[Prepared]:
    """All jobs of a file. Raises JobError for whatever is wrong with it, the images or the descriptors."""
    found = []
    for variant in load_jobs(file, overrides):
        try:
            found.append(Prepared(file, variant, make_plan(variant.job)))
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
            return each
    if jobs[0].label is None:
        raise JobError(f"--variant {label}: {jobs[0].file} has no sweep, and so no variants")
    raise JobError(f"--variant {label}: {jobs[0].file} has no such variant; there are {_labels(jobs)}")


def _labels(jobs: Sequence[Prepared]) -> str:
    return ", ".join(repr(each.label) for each in jobs)
