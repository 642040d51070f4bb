"""The command line, called as a user calls it but within this process."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest


@dataclass
class Said:
    status: int
    out: str
    err: str


@pytest.fixture
def fieldmark(monkeypatch, capsys):
    """`fieldmark(*arguments)` -> exit status, standard output, standard error."""
    from pipeline.cli import main

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["fieldmark", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ending:
            status = ending.code or 0
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return call


@pytest.fixture
def terminal(monkeypatch):
    """`terminal(answer)`: standard input and error are a terminal on which a person types this."""
    from pipeline.commands.speaking import people

    def attach(answer: str) -> None:
        typed = io.StringIO(answer)
        typed.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(people, "_force_terminal", True)

    return attach
