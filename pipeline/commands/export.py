"""`fieldmark export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import JobFile, Sets, VariantLabel
from pipeline.commands.speaking import failed, say, wrong


def export(
    job: JobFile,
    table: Annotated[
        str,
        typer.Argument(metavar="TABLE", help="as `status` names it: whole, views.NAME, methods.NAME; or dropped.NAME"),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="the Parquet file to write")],
    variant: VariantLabel = None,
    sets: Sets = None,
) -> None:
    """Write a table as Parquet; `dropped.NAME` is what clean-up left out of a language model's descriptors, and why."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pipeline.prepared import prepare_one
    from stages.described import dropped_rows
    from storage.shards import ShardTable

    prepared = prepare_one(job, sets or (), variant)
    tables = {
        name: each
        for stage in prepared.plan.stages
        for each in stage.tables
        if isinstance(each.keeper, ShardTable)
        for name in (f"{stage.stage.name}/{each.name}", each.name)
    }
    left_out, asked = table.startswith("dropped."), table
    table = table.replace("dropped.", "descriptors.", 1) if left_out else table
    if table not in tables:
        names = ", ".join(name for name in tables if "/" in name)
        raise wrong(f"no table is called {asked!r}; there are {names}")
    chosen = tables[table]
    if not chosen.present:
        raise failed(f"{asked} has no rows yet; compute them with: {prepared.command()}")
    present = pc.is_in(chosen.wanted, value_set=chosen.keeper.keys())
    rows = chosen.keeper.read(chosen.wanted.filter(present))
    rows = dropped_rows(rows) if left_out else rows
    pq.write_table(rows, out)
    say(f"wrote {len(rows):,} rows to {out}")
