"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="the job file")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a setting, e.g. views.random.crops=16"),
]
VariantLabel = Annotated[
    str | None, typer.Option("--variant", metavar="LABEL", help="of a job file with a sweep: this variant alone")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on standard output, nothing else there")]
