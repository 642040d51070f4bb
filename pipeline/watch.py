"""What a person sees while a job runs, on standard error: a progress bar a stage on a terminal, else plain lines."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.run import StageResult

SECONDS_BETWEEN_LINES = 10.0


class TerminalWatcher:
    """Progress with rows done of wanted, rate and time left."""

    def __init__(self, console: Console):
        self.console = console
        self.progress: Progress | None = None

    def stage_started(self, stage: str, units: int | None) -> None:
        """Put up a bar that counts to `units`, or runs without an end."""
        columns = (
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        self.progress = Progress(*columns, console=self.console, transient=True)
        self.task = self.progress.add_task(stage, total=units, rate="")
        self.started, self.done = time.monotonic(), 0
        self.progress.start()

    def advanced(self, stage: str, done: int, rejected: int) -> None:
        if self.progress is None:
            return
        self.done += done + rejected
        rate = self.done / max(time.monotonic() - self.started, 1e-6)
        self.progress.update(self.task, completed=self.done, rate=f"{rate:,.1f}/s")

    def noted(self, stage: str, text: str) -> None:
        """Say what a person should know."""
        self.console.print(f"{stage}: {text}", highlight=False, markup=False, soft_wrap=True)

    def stage_ended(self, stage: str, result: StageResult) -> None:
        self.closed()
        self.console.print(_line(result), highlight=False)

    def closed(self) -> None:
        """Take the bar away, also after a failure."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class LogWatcher:
    """Plain lines for logs: at the start, every few seconds, and at the end of a stage."""

    def __init__(self, console: Console):
        self.console = console

    def stage_started(self, stage: str, units: int | None) -> None:
        self.started = self.spoken = time.monotonic()
        self.done, self.units = 0, units
        if units is not None:
            self.console.print(f"{stage}: {units:,} to compute", highlight=False)

    def advanced(self, stage: str, done: int, rejected: int) -> None:
        """Say how far it is, when the last line is some seconds old."""
        self.done += done + rejected
        now = time.monotonic()
        if now - self.spoken >= SECONDS_BETWEEN_LINES:
            self.spoken = now
            rate = self.done / (now - self.started)
            line = f"{stage}: {self.done:,} done, {rate:,.1f}/s"
            if self.units is not None and rate:
                line = f"{stage}: {self.done:,} of {self.units:,} done, {rate:,.1f}/s"
                line += f", {(self.units - self.done) / rate:,.0f} s left"
            self.console.print(line, highlight=False)

    def noted(self, stage: str, text: str) -> None:
        """Say what a person should know."""
        self.console.print(f"{stage}: {text}", highlight=False, markup=False, soft_wrap=True)

    def stage_ended(self, stage: str, result: StageResult) -> None:
        self.console.print(_line(result), highlight=False)

    def closed(self) -> None: ...


def watcher_for(console: Console) -> TerminalWatcher | LogWatcher:
    """The watcher that suits where standard error goes."""
    return TerminalWatcher(console) if console.is_terminal else LogWatcher(console)


def _line(result: StageResult) -> str:
    rejected = f", {result.rejected:,} rejected" if result.rejected else ""
    if result.computed == 0 and result.seconds == 0:
        return f"{result.stage:<14} nothing to do ({result.reused:,} rows there{rejected})"
    return (
        f"{result.stage:<14} {result.computed:,} rows in {result.seconds:.1f} s"
        f" ({result.reused:,} were there{rejected})"
    )
