"""Run records: one JSON file a run under `<store>/runs/`: what was run, when, and what it computed."""

from __future__ import annotations

import json
import os
import secrets
from datetime import datetime, timezone

from storage import files


def new_run_id() -> str:
    """A name for a run that sorts by time (UTC, microseconds), such as `20250304T050607890123_1f2e3d4c`."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}_{secrets.token_hex(4)}"


def write_record(store: str, run_id: str, record: dict[str, object]) -> None:
    """Write a run's record, whole, with its id as `run`; writing again (the run has ended) replaces it.

    TypeError or ValueError where the record is no plain JSON (a number that is not finite included).
    """
    text = json.dumps({**record, "run": run_id}, indent=2, allow_nan=False)
    files.write_atomic(os.path.join(store, "runs", f"{run_id}.json"), text.encode(), run_id)


def read_records(store: str, newest: int | None = None) -> list[dict[str, object]]:
    """The records of a store's runs, or of so many of the newest, newest last; none before the first.

    ValueError names a broken file.
    """
    records = []
    paths = files.list_files(os.path.join(store, "runs"), ".json")[-(newest or 0) :]
    for path, data in zip(paths, files.read_each(paths), strict=True):
        try:
            records.append(json.loads(data))
        except ValueError as error:
            raise ValueError(f"{path} is no run record ({error}): move it out of this folder") from error
    return records
