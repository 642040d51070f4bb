"""`--force` and `--retry-rejects`: rows, or rejects, that are dropped before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.holding import Holding
from pipeline.plan import Plan
from stages.stage import Table

if TYPE_CHECKING:
    from pipeline.run import Selection


def drop_rows(plans: Sequence[Plan], selection: Selection, holding: Holding) -> bool:
    """Clear what is forced and forget rejects that are to be tried again, each table once; whether there was any.

    `plans` are of one store. No other run may read or compute these tables: raises StoreHeld, or waits.
    """
    forced = {_identity(table): table for plan in plans for table in _forced(plan, selection)}
    retried = {_identity(table): table for plan in plans for table in _retried(plan, selection)}
    tables = list((retried | forced).values())
    if not tables:
        return False
    holding.to_drop(plans[0], tables)
    for name, table in forced.items():
        retried.pop(name, None)
        holding.claims.check()
        table.keeper.clear()
    for table in retried.values():
        holding.claims.check()
        table.keeper.forget_rejects()
    holding.dropped(tables)
    return True


def _forced(plan: Plan, selection: Selection) -> Sequence[Table]:
    return plan.of(selection.force).tables if selection.force is not None else ()


def _retried(plan: Plan, selection: Selection) -> Iterator[Table]:
    if selection.retry_rejects:
        for name in selection.names([stage.stage.name for stage in plan.stages]):
            yield from (table for table in plan.of(name).tables if table.keeper.rejects().num_rows)


def _identity(table: Table) -> tuple[str, str]:
    return table.stage, table.fingerprint
