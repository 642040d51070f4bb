"""`fieldmark predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import AsJson, JobFile, Sets, VariantLabel
from pipeline.commands.speaking import console, failed, print_json, say, wrong


def predict(
    job: JobFile,
    image: Annotated[list[Path] | None, typer.Option(help="new image files; default: the job's own images")] = None,
    method: Annotated[list[str] | None, typer.Option(help="methods to show; default: all")] = None,
    top_k: Annotated[int, typer.Option("-k", min=1, help="best classes shown an image")] = 5,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="a .csv, .parquet or .json file")] = None,
    variant: VariantLabel = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Class, probability and margin an image, by every method."""
    from pipeline.predict import NotComputed, new_predictions, stored_predictions, write_predictions
    from pipeline.prepared import prepare_one
    from pipeline.show import show_predictions

    chosen = prepare_one(job, sets or (), variant)
    loaded, plan = chosen.job, chosen.plan
    known = [each.row_name for each in loaded.methods]
    if unknown := [name for name in method or () if name not in known]:
        raise wrong(f"--method {unknown[0]}: the job has {', '.join(known)}")
    if out is not None and out.suffix.lower() not in (".csv", ".parquet", ".json"):
        raise wrong(f"-o {out}: predictions are written as .csv, .parquet or .json")
    unreadable: list[tuple[Path, str]] = []
    try:
        if image:
            rows, unreadable = new_predictions(loaded, plan, image, method or (), top_k)
        else:
            rows = stored_predictions(plan, method or (), top_k)
    except NotComputed as error:
        raise failed(f"{error}; compute it with: {chosen.command()}") from None
    for path, reason in unreadable:
        say(f"{path}: {reason}", "red")
    if as_json:
        print_json({"predictions": rows})
    if out is not None:
        write_predictions(rows, out)
        say(f"wrote {len(rows):,} predictions to {out}")
    elif not as_json:
        show_predictions(console(), rows)
    if unreadable:
        raise typer.Exit(1)
