"""`fieldmark gc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import AsJson
from pipeline.commands.speaking import console, print_json, say

if TYPE_CHECKING:
    from pipeline.gc import Garbage


def gc(
    jobs: Annotated[list[Path], typer.Argument(metavar="JOB...", help="job files whose stores are looked at")],
    yes: Annotated[bool, typer.Option("--yes", help="remove what is listed")] = False,
    forget: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="unregister this job, which is no more")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what no job of these stores reads any more, and remove it with --yes.

    Jobs are known to a store once they ran there; these job files count as they are now. Never touched: what a running
    job uses, what a language model answered, run records.
    """
    from pipeline.gc import find_garbage, remove_garbage
    from pipeline.prepared import prepare_jobs
    from pipeline.registry import forget as forget_job

    prepared = [each for file in jobs for each in prepare_jobs(file, ())]
    by_store: dict[str, list[Any]] = {}
    for each in prepared:
        by_store.setdefault(each.job.store, []).append(each.plan)
    for name in forget or ():
        gone = sum(forget_job(store, name) for store in by_store)
        say(f"forgot job {name}" if gone else f"no job {name} is registered in {', '.join(by_store)}")
    found = [find_garbage(store, plans) for store, plans in by_store.items()]
    if yes:
        found = [remove_garbage(each, by_store[each.store]) for each in found]
    if as_json:
        print_json({"stores": [each.as_dict() for each in found]})
        return
    for each in found:
        _show(each, removed=yes)
    if not yes and any(each.unreached for each in found):
        say("Nothing was removed. To remove it, say so: fieldmark gc ... --yes")


def _show(garbage: Garbage, *, removed: bool) -> None:
    """A store's unreached things, and how much they are together."""
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    from pipeline.durations import tell_moment

    if not garbage.unreached:
        console().print(f"{garbage.store}: jobs read all there is", highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("table", overflow="fold")
    for name in ("rows", "size", "written"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where, and what its jobs have otherwise", overflow="fold")
    for one in garbage.unreached:
        rows = "" if one.rows is None else f"{one.rows:,}"
        written = "" if one.modified is None else tell_moment(one.modified)
        kept = ["not removed: a job came to read it"] if removed and not one.removed else []
        notes = "\n".join([one.path, *([one.differs] if one.differs else []), *kept])
        name = one.table or ("" if one.kind == "table" else one.kind)
        table.add_row(one.stage or "", escape(name), rows, decimal(one.bytes), written, escape(notes))
    console().print(table, highlight=False)
    counted = [one for one in garbage.unreached if one.removed or not removed]
    total = decimal(sum(one.bytes for one in counted))
    console().print(f"{'removed ' if removed else ''}{total} in {garbage.store}", markup=False, soft_wrap=True)
