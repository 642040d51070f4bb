"""What a run holds of its store: the tables it computes, reads or drops, under names that other runs see.

`STAGE/FINGERPRINT` held with others means that the table must stay: it is read, or rows are appended. Held alone it
means that the table is being dropped. `STAGE/FINGERPRINT/rows` is held alone by the run that computes its missing rows,
so that two runs do not compute the same; rows may be read meanwhile, since what is visible of a table is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from pipeline.plan import Plan
from pipeline.store_held import StoreHeld, tell_holders
from stages.stage import Table
from storage.leases import Claims, Held

SECONDS_BETWEEN_LOOKS = 2.0


class Holding:
    """The claims of a run, in terms of its plan. `wait`: for other runs to end, instead of raising StoreHeld."""

    def __init__(self, claims: Claims, wait: bool, tell: Callable[[str], None]):
        self.claims, self.wait, self.tell = claims, wait, tell
        self._told: set[str] = set()

    def to_compute(self, plan: Plan, stages: Iterable[str]) -> bool:
        """Hold what these stages lack and read, as far as it is known; whether the plan should be made again.

        It should where this is the first that the run holds, or where it had to wait: another may have computed it.
        """
        chosen = [plan.of(name) for name in stages if not plan.of(name).unknown]
        lacking = [table for stage in chosen for table in stage.tables if not table.complete]
        computing = {stage.stage.name for stage in chosen if not stage.done}
        reads = {name for stage in chosen if stage.stage.name in computing for name in stage.stage.reads}
        read = [table for name in reads for table in plan.of(name).tables]
        first = not (self.claims.exclusive or self.claims.shared) or not self.claims.is_intact()
        return self._take(map(_rows, lacking), map(_whole, [*lacking, *read]), _titles(plan)) or first

    def computed(self, tables: Sequence[Table]) -> None:
        """Let others compute rows of these tables, which are still read."""
        self.claims.give_up(map(_rows, tables))

    def to_drop(self, plan: Plan, tables: Sequence[Table]) -> bool:
        """Hold tables alone, to drop their rows; whether the plan should be made again, since it had to wait."""
        return self._take(map(_whole, tables), (), _titles(plan))

    def dropped(self, tables: Sequence[Table]) -> None:
        self.claims.give_up(map(_whole, tables))

    def _take(self, exclusive: Iterable[str], shared: Iterable[str], titles: dict[str, str]) -> bool:
        alone, together, waited = set(exclusive), set(shared), False
        while True:
            try:
                self.claims.take(alone, together)
                return waited
            except Held as held:
                if not self.wait:
                    raise StoreHeld(self.claims.store, held.holders, titles) from None
                self._say_once(tell_holders(held.holders, titles))
            # Two that each hold what the other waits for would wait for ever: who waits holds nothing.
            self.claims.give_up(self.claims.exclusive | self.claims.shared)
            waited = True
            while self.claims.in_the_way(alone, together):
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def _say_once(self, who: str) -> None:
        if who not in self._told:
            self._told.add(who)
            self.tell(f"waiting: {who}")


def _whole(table: Table) -> str:
    return f"{table.stage}/{table.fingerprint}"


def _rows(table: Table) -> str:
    return f"{_whole(table)}/rows"


def _titles(plan: Plan) -> dict[str, str]:
    tables = [table for stage in plan.stages for table in stage.tables]
    return {name(table): f"{table.stage}/{table.name}" for table in tables for name in (_whole, _rows)}
