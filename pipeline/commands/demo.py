"""`fieldmark demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.speaking import people, say


def demo(folder: Annotated[Path, typer.Argument(metavar="DIR")] = Path("fieldmark-demo")) -> None:
    """Render a small world of birds, run the whole job on it, show what came out."""
    from pipeline.demo import run_demo

    try:
        run_demo(folder, people)
    except KeyboardInterrupt:
        say(f"\nstopped; what is there is kept. Go on with: fieldmark demo {folder}")
        raise
