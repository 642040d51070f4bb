"""What a person sees while a job runs, on standard error: a progress bar a stage on a terminal, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pipeline.durations import tell_duration
from pipeline.pace import Pace
from pipeline.run import StageResult

SECONDS_BETWEEN_LINES = 10.0


class _Watcher:
    """What both ways of telling have in common: the facts of the stage that runs, and lines about the whole run."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console, self.clock = console, clock
        self._announced: set[str] = set()

    def stage_started(self, stage: str, units: int | None, present: int) -> None:
        """A stage begins: `units` rows to compute (None: not known), beside `present` that were there."""
        self.stage, self.units, self.present, self.pace = stage, units, present, Pace(self.clock)

    def advanced(self, stage: str, done: int, rejected: int) -> None:
        """So many more rows are computed, or rejected."""
        self.pace.advance(done + rejected)

    def facts(self) -> str:
        """Rows done of wanted, with those that were there before; then rate and time left, once they can be told."""
        done = self.present + self.pace.done
        if self.units is None:
            return f"{done:,} done"
        left = self.units - self.pace.done
        parts = [f"{done:,} of {self.present + self.units:,}"]
        if (rate := self.pace.rate) is not None:
            parts.append(f"{rate:,.1f}/s")
        if (seconds := self.pace.seconds_left(left)) is not None:
            parts.append(f"{tell_duration(seconds)} left")
        return ", ".join(parts)

    def beginning(self) -> str:
        """What there is to do: "1,204 to compute", "resumed at 500 of 1,204"."""
        if not self.present:
            return f"{self.units:,} to compute"
        return f"resumed at {self.present:,} of {self.present + self.units:,}"

    def noted(self, stage: str, text: str) -> None:
        """Say what a person should know of a stage."""
        self._say(f"{stage}: {text}")

    def announced(self, text: str) -> None:
        """Say what a person should know of the whole run, once: where it computes, and where that can be watched."""
        if text not in self._announced:
            self._announced.add(text)
            self._say(text)

    def stage_ended(self, stage: str, result: StageResult) -> None:
        """A stage is done: one line that stays."""
        self.closed()
        self._say(_outcome(result))

    def closed(self) -> None:
        """The stage that runs has ended, also by a failure."""

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class TerminalWatcher(_Watcher):
    """A bar with rows done of wanted, rate and time left; it vanishes when the stage ends."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        super().__init__(console, clock)
        self.progress: Progress | None = None

    def stage_started(self, stage: str, units: int | None, present: int) -> None:
        """Put up a bar that counts to all that is wanted, or runs without an end."""
        super().stage_started(stage, units, present)
        columns = TextColumn("{task.description:<14}"), BarColumn(bar_width=28), TextColumn("{task.fields[facts]}")
        self.progress = Progress(*columns, console=self.console, transient=True)
        total = None if units is None else present + units
        facts = "" if units is None else self.beginning()
        self.task = self.progress.add_task(stage, total=total, completed=present, facts=facts)
        self.progress.start()

    def advanced(self, stage: str, done: int, rejected: int) -> None:
        super().advanced(stage, done, rejected)
        if self.progress is not None:
            self.progress.update(self.task, completed=self.present + self.pace.done, facts=self.facts())

    def closed(self) -> None:
        """Take the bar away."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class LogWatcher(_Watcher):
    """Plain lines for logs: at the start, every few seconds, and at the end of a stage."""

    def stage_started(self, stage: str, units: int | None, present: int) -> None:
        """Say what there is to do, where that is known."""
        super().stage_started(stage, units, present)
        self.spoken = self.clock()
        if units is not None:
            self._say(f"{stage}: {self.beginning()}")

    def advanced(self, stage: str, done: int, rejected: int) -> None:
        """Say how far it is, when the last line is some seconds old."""
        super().advanced(stage, done, rejected)
        if self.clock() - self.spoken >= SECONDS_BETWEEN_LINES:
            self.spoken = self.clock()
            self._say(f"{stage}: {self.facts()}")


def watcher_for(console: Console) -> TerminalWatcher | LogWatcher:
    """The watcher that suits where standard error goes."""
    return TerminalWatcher(console) if console.is_terminal else LogWatcher(console)


def _outcome(result: StageResult) -> str:
    rejected = f", {result.rejected:,} rejected" if result.rejected else ""
    if result.computed == 0 and result.seconds == 0:
        return f"{result.stage:<14} nothing to do ({result.reused:,} rows there{rejected})"
    return (
        f"{result.stage:<14} {result.computed:,} rows in {tell_duration(result.seconds)}"
        f" ({result.reused:,} were there{rejected})"
    )
