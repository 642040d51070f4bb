"""`fieldmark init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.speaking import say


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder of images")],
    classes: Annotated[Path | None, typer.Option(help="class names, one a line, for a folder without labels")] = None,
    descriptors: Annotated[
        Path | None,
        typer.Option(help="a descriptor file, such as {class: [sentence, ...]}; default: class names alone"),
    ] = None,
) -> None:
    """Write a commented job file for a folder of images."""
    from pipeline.init import write_job_file

    out = write_job_file(folder, classes, descriptors)
    say(f"wrote {out}; next: fieldmark run {out}")
