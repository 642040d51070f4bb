"""`fieldmark query`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import AsJson, JobFile, Sets, VariantLabel
from pipeline.commands.speaking import console, failed, print_json, say, wrong


def query(
    job: JobFile,
    text: Annotated[str | None, typer.Argument(help="what to look for, such as 'a long red beak'")] = None,
    image: Annotated[Path | None, typer.Option(help="look for what resembles this image file")] = None,
    table: Annotated[str, typer.Option(help="crops, images or descriptors")] = "crops",
    class_name: Annotated[str | None, typer.Option("--class", help="only rows of this class")] = None,
    split: Annotated[str | None, typer.Option(help="only rows of this split")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="number of rows")] = 10,
    variant: VariantLabel = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Rows of the feature store that resemble a text or an image most."""
    from pipeline.feature_store import TABLES, FeatureStore, StoreError
    from pipeline.plan import READ_SPLITS
    from pipeline.prepared import prepare_one
    from pipeline.show import show_hits
    from stages.vision.decode import UnreadableImage

    if (text is None) == (image is None):
        raise wrong(
            'query takes a text or --image FILE, one of them; for example: fieldmark query job.yaml "a red beak"'
        )
    if table not in TABLES:
        raise wrong(f"--table {table}: allowed are {', '.join(TABLES)}")
    if image is not None and not image.is_file():
        raise wrong(f"--image: no file {image}")
    chosen = prepare_one(job, sets or (), variant)
    loaded, plan = chosen.job, chosen.plan
    run_again = chosen.command(until="project")
    _check_one_of("--class", class_name, plan.inputs.classes)
    _check_one_of("--split", split, () if table == "descriptors" else READ_SPLITS)
    try:
        store, up_to_date = FeatureStore.of_plan(plan, loaded)
        if not up_to_date:
            say(f"the images or texts have changed since; answered from the last run ({run_again} renews it)")
        hits = store.search(text, image=image, table=table, k=k, class_name=class_name, split=split)
    except StoreError as error:
        raise failed(f"{error}; compute them with: {run_again}") from None
    except UnreadableImage as error:
        raise failed(f"{image}: {error}") from None
    if as_json:
        print_json({"hits": hits})
    else:
        show_hits(console(), hits)


def _check_one_of(option: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        close = difflib.get_close_matches(value, allowed, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(allowed[:10]) + (", ..." if len(allowed) > 10 else "")
        raise wrong(f"{option} {value}: not in this table.{hint} There are: {shown or 'none'}")
