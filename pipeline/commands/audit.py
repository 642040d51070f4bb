"""`fieldmark audit`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import AsJson, JobFile, Sets, VariantLabel
from pipeline.commands.speaking import check_page, console, failed, print_json, say, write_page, wrong

if TYPE_CHECKING:
    from pipeline.settings import Job


def audit(
    job: JobFile,
    descriptors: Annotated[
        str | None, typer.Option(metavar="SET", help="default: the first set that a method says one by one")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="whose prompts are judged; default: the first that reads all of the set")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="images to judge on; default: support with five a class, else validation, else query"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of the job's seeds the one whose crops are meant")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="best and worst descriptors shown a class")] = 3,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="OUT", help="write a sheet with an empty column `verdict`")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="OUT", help="write a page with the crops")] = None,
    filtered: Annotated[
        Path | None, typer.Option("--filtered", metavar="OUT.json", help="write the descriptors that the filter leaves")
    ] = None,
    verdicts: Annotated[
        Path | None, typer.Option("--verdicts", metavar="SHEET.csv", help="a sheet whose verdicts win over figures")
    ] = None,
    variant: VariantLabel = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Which descriptors help and which hurt, from stored features; a sheet, and a filtered descriptor file."""
    from pipeline.audit import audit_job
    from pipeline.audit_sheet import read_verdicts, write_sheet
    from pipeline.predict import NotComputed
    from pipeline.prepared import prepare_one

    check_page(html)
    for option, out in (("--csv", csv), ("--filtered", filtered)):
        _check_place(option, out)
    said = None if verdicts is None else read_verdicts(verdicts)
    chosen = prepare_one(job, sets or (), variant)
    _check_spares_sources(filtered, chosen.job)
    try:
        found = audit_job(chosen, descriptors=descriptors, method=method, split=split, seed=seed, verdicts=said)
    except NotComputed as error:
        raise failed(f"{error}; compute it with: {chosen.command()}") from None
    for note in found.notes:
        say(note)
    if as_json:
        print_json(found.document)
    else:
        from pipeline.audit_table import show_audit

        show_audit(console(), found.document, k)
    if csv is not None:
        with _told_of_failures("--csv", csv):
            write_sheet(found.document, csv)
        say(f"wrote {csv}; say keep or drop in its column verdict, and read it with --verdicts {csv}")
    if filtered is not None:
        with _told_of_failures("--filtered", filtered):
            _write_filtered(filtered, found.filtered)
        say(f"wrote {filtered}; a job reads it with {_entry(filtered, job, found.document)}")
    if html is not None:
        from pipeline.audit_page import audit_page

        write_page(html, audit_page(found.document, chosen.plan.inputs.manifest, k))
        say(f"wrote {html}")


def _check_place(option: str, out: Path | None) -> None:
    """Before anything is computed, that a file can be written there. Raises as `wrong`."""
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir():
        where = f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise wrong(f"{option} {out}: {where}")
    if option == "--filtered" and out.suffix.lower() != ".json":
        raise wrong(f"{option} {out}: descriptors are written as .json")


def _check_spares_sources(out: Path | None, job: Job) -> None:
    """That a filtered file is not written over one that the job reads. Raises as `wrong`."""
    if out is None or not out.exists():
        return
    sources = [Path(path) for one in job.descriptors.values() for path in one.paths.values()]
    if any(path.exists() and out.samefile(path) for path in sources):
        raise wrong(f"--filtered {out}: the job reads its descriptors there; name another file")


@contextmanager
def _told_of_failures(option: str, out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failed(f"{option} {out}: cannot be written: {error.strerror or error}") from None


def _write_filtered(out: Path, descriptors: Mapping[str, list[str]]) -> None:
    out.write_text(json.dumps(descriptors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _entry(out: Path, job: Path, document: Mapping[str, Any]) -> str:
    """The lines of a job file that read a filtered file, from where the job file lies."""
    path = os.path.relpath(out, job.parent)
    set_name, form = document["descriptors"], document["form"]
    return (
        f"descriptors: {{{set_name}: {{provider: file, path: {json.dumps(path, ensure_ascii=False)}, form: {form}}}}}"
    )
