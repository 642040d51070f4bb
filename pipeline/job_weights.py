"""Before a run: which published weights a job's names stand for, and that its guides exist."""

from __future__ import annotations

from pipeline.job_error import JobError
from pipeline.plan import Plan
from pipeline.settings import Job
from stages.encode_images import guides_in_use
from stages.settings import DinoGuide
from stages.stage import weights_cache
from stages.weights import is_resolved, resolve_weights


def resolve_job_weights(job: Job, run_id: str) -> None:
    """Before anything is planned, find out which weights public names stand for. Raises JobError for a wrong one."""
    cache = weights_cache(job.store)
    guides = guides_in_use([(view, 0) for view in job.views.values()], job.guides)
    if not is_resolved(job.model, cache):
        from stages.vision.towers import ModelError, check_weights

        try:
            check_weights(job.model.name, job.model.weights, job.model.activation)
        except ModelError as error:
            raise JobError(f"model.weights: {error}") from None
        resolve_weights(job.model, cache, run_id)
    for name, guide in guides.items():
        if isinstance(guide, DinoGuide) and not is_resolved(guide, cache):
            _check_guide_name(name, guide)
            resolve_weights(guide, cache, run_id)


def check_guides(job: Job, plan: Plan, forced: str | None) -> None:
    """Before anything starts or is forgotten, that the guides about to be loaded exist. Raises JobError."""
    encoding = plan.of("encode_images")
    tables = [t for t in encoding.tables if t.missing or forced == encoding.stage.name]
    lacking = [table.plan for table in tables if table.plan is not None]
    for name, guide in guides_in_use(lacking, job.guides).items():
        if isinstance(guide, DinoGuide):
            _check_guide_name(name, guide)


def _check_guide_name(name: str, guide: DinoGuide) -> None:
    from stages.vision.dino import check_guide_name

    try:
        check_guide_name(guide.name)
    except ValueError as error:
        raise JobError(f"guides.{name}.name: {error}") from None
