"""Before a run: does it make large tables anew for no other reason than a newer version of our own code?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.commands.speaking import agrees, say
from pipeline.commands.status import forecast_jobs, rows_to_compute

if TYPE_CHECKING:
    from pipeline.prepared import Prepared
    from pipeline.run import Selection

LARGE_ROWS = 10_000
LONG_SECONDS = 600.0


def agrees_to_newer_code(jobs: Sequence[Prepared], selection: Selection, yes: bool) -> bool:
    """Whether to go on: where so many rows or so long a time would be spent, a person at a terminal is asked.

    Elsewhere, and with `yes`, it is told and the run goes on.
    """
    from pipeline.durations import tell_duration
    from pipeline.forecast import together, total
    from pipeline.why import Why

    if not any(len(table.missing) for each in jobs for stage in each.plan.stages for table in stage.tables):
        return True
    why = Why(jobs[0].job.store)
    newer = {
        (table.stage, table.keeper.folder)
        for each in jobs
        for stage in each.plan.stages
        for table in stage.tables
        if why.is_newer_code_alone(table)
    }
    if not newer:
        return True
    rows = [
        [row for row in of_job if (row["stage"], row["location"]) in newer]
        for of_job in rows_to_compute(jobs, selection, why)
    ]
    takes = together(each for some in forecast_jobs(jobs, rows, why) for each in some)
    seconds = total(each.seconds for each in takes)
    if sum(each.rows for each in takes) < LARGE_ROWS and (seconds or 0.0) < LONG_SECONDS:
        return True
    say("newer code makes these tables anew, though no setting has changed:", "bold")
    for row in {row["location"]: row for of_job in rows for row in of_job}.values():
        say(f"  {row['stage']}/{row['table']}: {row['why']}")
    say(f"  about {tell_duration(seconds)}" if seconds is not None else "  how long that takes is not known")
    return yes or agrees("compute them anew?")
