"""How commands speak: people's tables and progress on standard error, answers on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from pipeline.job_error import JobError


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; wide where there is none, so that tables in a file are not folded."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    return Console(stderr=stderr, width=width)


people = console(stderr=True)


def wrong(message: str) -> JobError:
    """The error of a call that cannot be meant: exit status 2."""
    return JobError(message)


def agrees(question: str) -> bool:
    """What a person at a terminal answers, no unless it is yes; where there is nobody to ask, yes."""
    if not (sys.stdin.isatty() and people.is_terminal):
        return True
    try:
        return people.input(f"{question} [y/N] ", markup=False).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def say(message: str, style: str | None = None) -> None:
    """A line for a person, as it stands."""
    people.print(message, style=style, highlight=False, markup=False, soft_wrap=True)


def failed(message: str) -> typer.Exit:
    """Say what went wrong; the exit, with status 1, is for the caller to raise."""
    say(message, "red")
    return typer.Exit(1)


def print_json(document: Any) -> None:
    """The one document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_page(out: Path | None) -> None:
    """Before anything is computed, that a page can be written there. Raises as `wrong`."""
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        where = f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise wrong(f"--html {out}: {where}")


def write_page(out: Path, page: str) -> None:
    """Write a page. Raises as `failed`."""
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise failed(f"--html {out}: {error.strerror or error}") from None
