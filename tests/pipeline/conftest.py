"""The command line, called as a user calls it but within this process."""

from __future__ import annotations

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
