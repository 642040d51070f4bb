"""Versions of a LanceDB table: few files, a tag for what each run left, and no end of old ones.

A commit leaves its files beside those of all commits before. They are merged here, and a version is kept as long as a
tagged one is no younger: `table.checkout("run-ID")` of any LanceDB client reads what that run left, for the newest ten
runs that changed the database. Functions take the opened table of `storage.lance`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

KEPT_TAGS = 10
READERS = timedelta(minutes=1)
"""So long a version stays at least, for those who are reading it."""


def merge_files(table: Any) -> None:
    """Merge small files into large ones, take new rows into the indexes there are, and remove old versions.

    Old are those that no tag keeps: younger than every tagged one they are not, nor than `READERS`.
    """
    # LanceDB removes nothing, and says so by an error, where a tagged version is old enough to go.
    tagged = [tag["version"] for tag in table.tags.list().values()]
    age = timedelta(0)
    if tagged:
        oldest = next(one["timestamp"] for one in table.list_versions() if one["version"] == min(tagged))
        # LanceDB tells local time without its zone, in which an hour comes twice a year.
        age = max(age, datetime.now(timezone.utc) - oldest.astimezone())
    table.optimize(cleanup_older_than=age + READERS)


def tag_version(table: Any, run: str) -> None:
    """Tag the table as it is now as what `run` (its id) left, and let go of the oldest such tags beyond `KEPT_TAGS`."""
    name, tags = f"run-{run}", table.tags.list()
    (table.tags.update if name in tags else table.tags.create)(name, table.version)
    for old in tagged_runs(table)[:-KEPT_TAGS]:
        table.tags.delete(f"run-{old}")


def tagged_runs(table: Any) -> list[str]:
    """Ids of the runs whose state of the table is kept, in the order of their versions, then of their ids."""
    tags = table.tags.list()
    return sorted(
        (name.removeprefix("run-") for name in tags if name.startswith("run-")),
        key=lambda run: (tags[f"run-{run}"]["version"], run),
    )
