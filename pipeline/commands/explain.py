"""`fieldmark explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import AsJson, JobFile, Sets, VariantLabel
from pipeline.commands.speaking import check_page, console, failed, print_json, say, write_page


def explain(
    job: JobFile,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="an image's id, the end of one, or its file")],
    method: Annotated[str | None, typer.Option(help="default: the job's dnd, else abs, wca or crops_mean")] = None,
    class_name: Annotated[
        list[str] | None,
        typer.Option("--class", help="shown beside the predicted one; default: the label, else the runner-up"),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="descriptors and pairs shown a class")] = 10,
    seed: Annotated[int | None, typer.Option(help="of the job's seeds the one whose crops are meant")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="OUT", help="write a page with the crops drawn")
    ] = None,
    variant: VariantLabel = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Which crop spoke for which descriptor of the predicted class and of another, with how much mass."""
    from pipeline.explain import CannotExplain, explain_image
    from pipeline.predict import NotComputed
    from pipeline.prepared import prepare_one

    check_page(html)
    chosen = prepare_one(job, sets or (), variant)
    try:
        found = explain_image(chosen, image, method=method, others=class_name or (), seed=seed, top=k)
    except NotComputed as error:
        raise failed(f"{error}; compute it with: {chosen.command()}") from None
    except CannotExplain as error:
        raise failed(str(error)) from None
    for note in found.notes:
        say(note)
    kind = next(each.name for each in chosen.job.methods if each.row_name == found.document["method"])
    if as_json:
        print_json(found.document)
    if html is not None:
        from pipeline.explain_page import explanation_page
        from storage.blobs import read_blobs

        page = explanation_page(found.document, read_blobs([found.uri])[0], kind, k)
        write_page(html, page)
        say(f"wrote {html}")
    elif not as_json:
        from pipeline.explain_table import show_explanation

        show_explanation(console(), found.document, kind, k)
