"""The error of a run that another one keeps out of tables; a module of its own, so that `--help` needs no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any


class StoreHeld(RuntimeError):
    """Another run holds what this one needs: exit status 3. The message names store, tables, job, host, since when."""

    def __init__(self, store: str, holders: Sequence[Mapping[str, Any]], titles: Mapping[str, str]):
        super().__init__(f"{store}: {tell_holders(holders, titles)}; wait with --wait, or stop that run")
        self.holders = list(holders)


def tell_holders(holders: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Who holds which tables since when. `titles`: name of a resource -> what a person calls that table."""
    return "; ".join(_tell(holder, titles) for holder in holders)


def _tell(holder: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    places = list(titles)  # in the order in which stages run
    resources = sorted(holder["resources"], key=lambda one: places.index(one) if one in titles else len(places))
    tables = list(dict.fromkeys(titles.get(resource, resource) for resource in resources))
    shown = ", ".join(tables[:3]) + (f" and {len(tables) - 3} more" if len(tables) > 3 else "")
    noun = "table" if len(tables) == 1 else "tables"
    computed = all(resource.endswith("/rows") for resource in holder["resources"])
    verb = ("is" if len(tables) == 1 else "are") + (" being computed" if computed else " in use")
    since = _moment(datetime.fromisoformat(holder["since"]).astimezone())
    return (
        f"{noun} {shown} {verb} by job {holder['job']} on {holder['host']} (process {holder['process']}) since {since}"
    )


def _moment(since: datetime) -> str:
    """`14:05` today, `4 Mar 14:05` before."""
    return f"{since:%H:%M}" if since.date() == datetime.now().date() else f"{since.day} {since:%b %H:%M}"
