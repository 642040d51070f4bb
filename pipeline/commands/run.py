"""`fieldmark run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import AsJson, JobFile, Sets, VariantLabel
from pipeline.commands.speaking import failed, people, print_json, say, wrong
from pipeline.commands.status import by_variant, tell_of_twins
from pipeline.job_error import JobError
from pipeline.store_held import StoreHeld

if TYPE_CHECKING:
    from pipeline.job_file import Variant
    from pipeline.prepared import Prepared
    from pipeline.run import Selection, StageResult


def run(
    job: JobFile,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="run this stage alone")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="run this stage and those after")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="run up to and with this stage")] = None,
    force: Annotated[
        str | None, typer.Option(metavar="STAGE", help="drop this stage's rows and make them anew")
    ] = None,
    retry_rejects: Annotated[
        bool, typer.Option(help="try rejected images again, once what ailed them is mended")
    ] = False,
    variant: VariantLabel = None,
    sets: Sets = None,
    address: Annotated[str | None, typer.Option(help="a Ray cluster; default RAY_ADDRESS, else a local one")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="wait for another run that holds the store's tables")] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="do not ask before newer code makes large tables anew, or many tokens are spent"),
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="show what would run and take, start nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute what is missing, stage by stage; run again to go on after a stop.

    The variants of a sweep run one after another and share every table that they can; they leave out `project`, unless
    --until or --only asks for it.
    """
    from pipeline.commands import status
    from pipeline.commands.newer_code import agrees_to_newer_code
    from pipeline.commands.spending import agrees_to_spend
    from pipeline.prepared import choose_variant, prepare_jobs
    from pipeline.run import Selection
    from pipeline.run_sweep import for_its_table

    jobs = prepare_jobs(job, sets or ())
    if variant is not None:
        jobs = [choose_variant(jobs, variant)]
    order = [stage.stage.name for stage in jobs[0].plan.stages]
    told = tell_of_twins(jobs)
    selection = Selection(only, start, until, force, retry_rejects, wait)
    try:
        selection.check(order)
    except ValueError as error:
        raise wrong(str(error)) from None
    if jobs[0].label is not None:
        selection = for_its_table(selection, order)
    if dry_run:
        status.dry_run(jobs, selection, as_json)
        return
    if not agrees_to_newer_code(jobs, selection, yes) or not agrees_to_spend(jobs, selection, yes):
        raise failed("nothing was computed")
    done = _compute(jobs, address, selection)
    if as_json:
        print_json(by_variant(jobs, [{"stages": [asdict(result) for result in stages]} for stages in done]))
        return
    if any(result.seconds for stages in done for result in stages) or not all(map(_is_evaluated, jobs)):
        labels = {each.label for each in jobs}
        jobs = [each for each in prepare_jobs(job, sets or ()) if each.label in labels]
    if not told:
        tell_of_twins(jobs)  # before the first run it is not known yet which are
    _show_outcome(jobs)


def _compute(jobs: Sequence[Prepared], address: str | None, selection: Selection) -> list[list[StageResult]]:
    """Run the jobs of one file, saying which variant begins, stops or fails."""
    from pipeline.run_sweep import run_variants
    from pipeline.watch import watcher_for

    begun: list[str] = []

    def starting(variant: Variant) -> None:
        if variant.label is not None:
            begun.append(variant.label)
            say(f"{variant.label} ({len(begun)} of {len(jobs)})", "bold")

    try:
        file = str(jobs[0].file.resolve())
        return run_variants([each.variant for each in jobs], watcher_for(people), address, selection, starting, file)
    except StoreHeld:
        raise
    except JobError as error:
        raise JobError(f"{jobs[0].file}: {error}") from None
    except KeyboardInterrupt:
        where = f" in variant {begun[-1]}" if begun else ""
        say(f"\nstopped{where}; what is computed is kept. Go on with: {jobs[0].command()}")
        raise
    except Exception:
        if begun:
            say(f"variant {begun[-1]} failed; what is computed is kept. Go on with: {jobs[0].command()}", "red")
        raise


def _show_outcome(jobs: Sequence[Prepared]) -> None:
    """What was rejected, and the table of methods as far as it is there."""
    from pipeline.results import collect_results
    from pipeline.show import show_rejects, show_results

    rejects = {row["key"]: row for each in jobs for row in each.plan.rejects}
    show_rejects(people, [rejects[key] for key in sorted(rejects)])
    evaluated = [each for each in jobs if _is_evaluated(each)]
    rows = [row for each in evaluated for row in collect_results(each.plan, each.title)]
    if rows:
        show_results(people, rows)
    if rows and jobs[0].label is not None:
        say(f"The same as a plot: {jobs[0].call('results', '--plot', f'{jobs[0].file.stem}.png')}")


def _is_evaluated(job: Prepared) -> bool:
    return job.plan.of("evaluate").done
