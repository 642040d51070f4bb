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
        str, typer.Argument(metavar="TABLE", help="as `status` names it: whole, views.NAME, methods.NAME")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="the Parquet file to write")],
    variant: VariantLabel = None,
    sets: Sets = None,
) -> None:
    """Write a table as Parquet."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pipeline.prepared import prepare_one
    from storage.shards import ShardTable

    prepared = prepare_one(job, sets or (), variant)
    tables = {
        name: each
        for stage in prepared.plan.stages
        for each in stage.tables
        if isinstance(each.keeper, ShardTable)
        for name in (f"{stage.stage.name}/{each.name}", each.name)
    }
    if table not in tables:
        names = ", ".join(name for name in tables if "/" in name)
        raise wrong(f"no table is called {table!r}; there are {names}")
    chosen = tables[table]
    if not chosen.present:
        raise failed(f"{table} has no rows yet; compute them with: {prepared.command()}")
    present = pc.is_in(chosen.wanted, value_set=chosen.keeper.keys())
    pq.write_table(chosen.keeper.read(chosen.wanted.filter(present)), out)
    say(f"wrote {chosen.present:,} rows to {out}")
