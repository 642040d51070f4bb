"""The sheet of an audit: a CSV file that a person looks through in a spreadsheet, and whose verdicts are read back.

A cell of text that a spreadsheet would run as a formula is written with an apostrophe before it, and so is one that
begins with an apostrophe: taking one away gives what it was.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pipeline.audit_document import Verdicts
from pipeline.job_error import JobError
from stages.audit_filter import Verdict

COLUMNS = (
    "class", "descriptor", "fit", "auc", "p", "gained without", "lost without", "share of crops", "share of images",
    "crops", "nearest", "cosine", "redundant", "also of", "source", "doubt", "filter", "verdict",
)  # fmt: skip
SAID = tuple(word for word in get_args(Verdict) if word)
_RUN = ("=", "+", "-", "@", "\t", "\r", "'")
_BETWEEN = " | "


def write_sheet(document: Mapping[str, Any], out: Path) -> None:
    """Write a line a descriptor, with the verdicts that are known, in UTF-8 as spreadsheets tell it.

    Raises JobError where the file holds verdicts that this document does not have: somebody's work would be lost.
    """
    if out.exists() and (lost := _lost(document, out)):
        raise JobError(
            f"--csv {out}: has {lost:,} verdicts that would be lost; read them with --verdicts {out}, "
            "or name another file"
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for told in document["classes"]:
        writer.writerows(_line(told, each) for each in told["descriptors"])
    out.write_text(text.getvalue(), encoding="utf-8-sig", newline="")


def read_verdicts(path: Path) -> Verdicts:
    """What stands in the column `verdict`, by class and descriptor: `keep`, `drop` or nothing, in any case.

    Commas, semicolons or tabs part the columns, as spreadsheets write them; columns beside class, descriptor and
    verdict do not matter. Raises JobError that names the line.
    """
    found: dict[tuple[str, str], list[Verdict]] = {}
    for line, row in _rows(path):
        said = (row["verdict"] or "").strip().lower()
        if said not in get_args(Verdict):
            allowed = f"{', '.join(SAID)} or nothing"
            raise JobError(f"--verdicts {path}, line {line}: verdict {row['verdict']!r} is not allowed; say {allowed}")
        found.setdefault((unguarded(row["class"] or ""), unguarded(row["descriptor"] or "")), []).append(said)
    return found


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return f"'{text}" if text.startswith(_RUN) else text


def unguarded(cell: str) -> str:
    """The text of a cell that `guarded` made; that of others as it is, since a spreadsheet may have taken it away."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_RUN) else cell


def _line(told: Mapping[str, Any], each: Mapping[str, Any]) -> dict[str, Any]:
    texts = {
        "class": told["class"],
        "descriptor": each["text"],
        "crops": _BETWEEN.join(f"{crop['image']}#{crop['number']}" for crop in each["best"]),
        "nearest": "" if each["nearest"] is None else each["nearest"]["text"],
        "also of": _BETWEEN.join(each["elsewhere"]),
        "source": told["source"],
    }
    figures = {
        "auc": each["auc"],
        "p": each["p"],
        "share of crops": each["crops"],
        "share of images": each["images"],
        "cosine": None if each["nearest"] is None else each["nearest"]["cosine"],
    }
    return {name: guarded(text) for name, text in texts.items()} | {
        **{name: "" if value is None else f"{value:.4g}" for name, value in figures.items()},
        "fit": each["fit"],
        "gained without": each["gained"],
        "lost without": each["lost"],
        "redundant": "yes" if each["redundant"] else "",
        "doubt": each["doubt"],
        "filter": "drop" if each["dropped"] else "keep",
        "verdict": each["verdict"],
    }


def _lost(document: Mapping[str, Any], path: Path) -> int:
    """How many verdicts a file that is there would lose. Raises JobError for one that is no sheet."""
    try:
        return _not_told(document, path)
    except JobError:
        raise JobError(f"--csv {path}: is there, and no sheet that can be read; name another file") from None


def _not_told(document: Mapping[str, Any], path: Path) -> int:
    """How many verdicts a sheet has that the document has not."""
    told: dict[tuple[str, str], list[str]] = {}
    for one in document["classes"]:
        for each in one["descriptors"]:
            told.setdefault((one["class"], each["text"]), []).append(each["verdict"])
    return sum(
        bool(said) and said not in told.get(key, ()) for key, lines in read_verdicts(path).items() for said in lines
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells of each line after the first."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # a text may hold ends of lines of its own
    except UnicodeDecodeError as error:
        raise JobError(f"--verdicts {path}: is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    except OSError as error:
        raise JobError(f"--verdicts {path}: cannot be read: {error.strerror or error}") from None
    first = text.split("\n", 1)[0]
    between = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    try:
        _check_columns(path, reader.fieldnames or ())
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        line = reader.line_num
        raise JobError(f"--verdicts {path}, line {line}: {error}; is a quotation mark not closed?") from None


def _check_columns(path: Path, found: Sequence[str]) -> None:
    missing = [name for name in ("class", "descriptor", "verdict") if name not in found]
    if missing:
        raise JobError(f"--verdicts {path}: has no column {', '.join(missing)}; `fieldmark audit --csv` writes a sheet")
