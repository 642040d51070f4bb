"""`fieldmark demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.speaking import people, say


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR")] = Path("fieldmark-demo"),
    images: Annotated[int, typer.Option(min=1, max=1000, help="pictures of each of 32 species to classify")] = 25,
) -> None:
    """Render a small world of birds, run the whole job on it, show what came out."""
    from pipeline.demo import run_demo

    try:
        run_demo(folder, people, images)
    except KeyboardInterrupt:
        say(f"\nstopped; what is there is kept. Go on with: fieldmark demo {folder}")
        raise
