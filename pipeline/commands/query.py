"""`fieldmark query`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import AsJson, JobFile, Sets, VariantLabel
from pipeline.commands.speaking import check_page, console, failed, print_json, say, write_page, wrong

if TYPE_CHECKING:
    from pipeline.prepared import Prepared

SPLITS = ("query", "support", "validation")


def query(
    job: JobFile,
    text: Annotated[str | None, typer.Argument(help="what to look for, such as 'a long red beak'")] = None,
    image: Annotated[Path | None, typer.Option(help="look for what resembles this image file")] = None,
    table: Annotated[str, typer.Option(help="crops, images, descriptors or cache")] = "crops",
    class_name: Annotated[str | None, typer.Option("--class", help="only rows of this class")] = None,
    split: Annotated[str | None, typer.Option(help="only rows of this split")] = None,
    descriptors: Annotated[str | None, typer.Option(help="only rows of this descriptor set")] = None,
    min_similarity: Annotated[float | None, typer.Option(min=-1, max=1, help="only rows as alike, a cosine")] = None,
    where: Annotated[
        str | None, typer.Option(help="""only rows for which it holds, e.g. "view = 'guided' AND number < 9" """)
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="compare every row of a table that has an index")] = False,
    k: Annotated[int, typer.Option("-k", min=1, max=100_000, help="number of rows")] = 10,
    html: Annotated[
        Path | None, typer.Option(metavar="OUT", help="write a page with the crops drawn on their images")
    ] = None,
    variant: VariantLabel = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Rows of the feature store that resemble a text or an image most."""
    from pipeline.feature_store import TABLES, FeatureStore
    from pipeline.prepared import prepare_one
    from pipeline.query_error import QueryError, StoreError
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
    check_page(html)
    chosen = prepare_one(job, sets or (), variant)
    loaded, plan = chosen.job, chosen.plan
    _check_one_of("--class", class_name, plan.inputs.classes)
    _check_one_of("--split", split, SPLITS if table in ("crops", "images") else ())
    _check_one_of("--descriptors", descriptors, list(loaded.descriptors) if table in ("descriptors", "cache") else ())
    run_again = chosen.command(until="project")
    try:
        store, up_to_date = FeatureStore.of_plan(plan, loaded)
    except StoreError as error:
        raise failed(f"{error}; compute them with: {run_again}") from None
    if not up_to_date:
        say(f"the images or texts have changed since; answered from the last run ({run_again} renews it)")
    try:
        hits = store.search(
            text,
            image=image,
            table=table,
            k=k,
            class_name=class_name,
            split=split,
            descriptors=descriptors,
            min_similarity=min_similarity,
            where=where,
            exact=exact,
        )
    except QueryError as error:
        raise wrong(str(error)) from None
    except StoreError as error:
        raise failed(str(error)) from None
    except UnreadableImage as error:
        raise failed(f"{image}: {error}") from None
    if html is not None:
        _write_page(html, chosen, hits, text, image, table)
    if as_json:
        print_json({"hits": hits})
    elif html is None:
        show_hits(console(), hits)


def _write_page(
    out: Path, chosen: Prepared, hits: Sequence[dict[str, Any]], text: str | None, image: Path | None, table: str
) -> None:
    from pipeline.hits_page import hits_page

    page = hits_page(
        text if image is None else f"like {image.name}",
        hits,
        chosen.plan.inputs.manifest,
        lead=f"{len(hits):,} of the {table} of {chosen.title}, most similar first (cosine)",
        picture=None if image is None else image.read_bytes(),
    )
    write_page(out, page)
    say(f"wrote {len(hits):,} rows to {out}")


def _check_one_of(option: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        close = difflib.get_close_matches(value, allowed, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(allowed[:10]) + (", ..." if len(allowed) > 10 else "")
        raise wrong(f"{option} {value}: not in this table.{hint} There are: {shown or 'none'}")
