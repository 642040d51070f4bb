"""Progress: rows done of wanted, with a rate and time left that are right soon after a start and after a resume."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.durations import tell_duration
from pipeline.pace import Pace
from pipeline.run import StageResult
from pipeline.watch import LogWatcher, TerminalWatcher, watcher_for


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def paced(*answers: tuple[float, int]) -> Pace:
    """A pace after answers: seconds since the one before, rows."""
    clock = Clock()
    pace = Pace(clock)
    for seconds, rows in answers:
        clock.wait(seconds)
        pace.advance(rows)
    return pace


def test_a_rate_is_known_from_the_second_answer_on_and_does_not_count_the_start():
    assert paced().rate is paced((60, 16)).rate is None
    assert paced((60, 16), (2, 16)).rate == pytest.approx(8)
    assert paced((60, 16), (2, 16)).seconds_left(80) == pytest.approx(10)
    assert paced((60, 16)).seconds_left(80) is None


def test_actors_that_answer_together_are_not_taken_for_a_fast_one():
    burst = [(0.01, 16)] * 3
    pace = paced((60, 16), *burst, (8, 16), *burst)
    assert pace.rate == pytest.approx(64 / 8, rel=0.01)


def test_a_rate_is_that_of_the_last_half_minute():
    fast_then_slow = [(2, 20)] * 50 + [(2, 4)] * 16
    assert paced(*fast_then_slow).rate == pytest.approx(2)


def test_answers_that_are_minutes_apart_give_a_rate_too():
    assert paced((60, 64), (120, 64), (120, 64), (60, 64)).rate == pytest.approx(64 / 60)


def test_a_steady_stream_of_quick_answers_has_its_rate_within_seconds():
    assert paced((30, 5), *[(0.1, 5)] * 40).rate == pytest.approx(50, rel=0.1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return LogWatcher(Console(file=io.StringIO(), width=60), clock)


def lines(watcher) -> list[str]:
    return watcher.console.file.getvalue().splitlines()


def test_a_log_says_what_there_is_to_do_then_now_and_then_how_far_it_is_then_what_was_done(log, clock):
    log.stage_started("score", 1204, 0)
    for _ in range(30):
        clock.wait(1)
        log.advanced("score", 9, 1)
    log.stage_ended("score", StageResult("score", 1200, 0, 4, 125.0, work=1204))
    assert lines(log) == [
        "score: 1,204 to compute",
        "score: 100 of 1,204, 10.0/s, 2 min left",
        "score: 200 of 1,204, 10.0/s, 2 min left",
        "score: 300 of 1,204, 10.0/s, 90 s left",
        "score          1,200 rows in 2 min (0 were there, 4 rejected)",
    ]


def test_a_resumed_stage_counts_what_was_there_as_done_and_not_as_fast(log, clock):
    log.stage_started("encode_images", 704, 500)
    clock.wait(40)
    log.advanced("encode_images", 16, 0)
    clock.wait(16)
    log.advanced("encode_images", 16, 0)
    assert lines(log) == [
        "encode_images: resumed at 500 of 1,204",
        "encode_images: 516 of 1,204",
        "encode_images: 532 of 1,204, 1.0/s, 11 min left",
    ]


def test_a_stage_of_seconds_has_a_first_and_a_last_line(log, clock):
    log.stage_started("describe", 3, 0)
    clock.wait(0.1)
    log.advanced("describe", 3, 0)
    log.stage_ended("describe", StageResult("describe", 3, 0, 0, 0.1, work=3))
    log.stage_ended("encode_text", StageResult("encode_text", 0, 34, 0, 0.0, work=0))
    assert lines(log) == [
        "describe: 3 to compute",
        "describe       3 rows in 0.1 s (0 were there)",
        "encode_text    nothing to do (34 rows there)",
    ]


def test_a_stage_that_cannot_say_how_much_there_is_counts_all_the_same(log, clock):
    log.stage_started("project", None, 0)
    clock.wait(11)
    log.advanced("project", 5000, 0)
    assert lines(log) == ["project: 5,000 done"]


def test_what_concerns_the_whole_run_is_said_once_and_as_it_stands(log):
    for _ in range(2):
        log.announced("birds in runs/[birds]; Ray's dashboard: http://127.0.0.1:8265")
    log.noted("score", "waits for [2] GPUs")
    assert lines(log) == [
        "birds in runs/[birds]; Ray's dashboard: http://127.0.0.1:8265",
        "score: waits for [2] GPUs",
    ]


def test_a_terminal_has_a_bar_with_the_same_facts_that_is_gone_when_the_stage_ends(clock):
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    watcher = TerminalWatcher(console, clock)
    watcher.stage_started("encode_images", 704, 500)
    shown = watcher.progress.tasks[0]
    assert (shown.completed, shown.total, shown.fields["facts"]) == (500, 1204, "resumed at 500 of 1,204")
    for _ in range(3):
        clock.wait(4)
        watcher.advanced("encode_images", 16, 0)
    shown = watcher.progress.tasks[0]
    assert (shown.completed, shown.fields["facts"]) == (548, "548 of 1,204, 4.0/s, 3 min left")
    watcher.stage_ended("encode_images", StageResult("encode_images", 704, 500, 0, 176.0, work=704))
    assert watcher.progress is None
    assert "704 rows in 3 min (500 were there)" in console.file.getvalue()


def test_a_failure_takes_the_bar_away(clock):
    watcher = TerminalWatcher(Console(file=io.StringIO(), force_terminal=True), clock)
    watcher.closed()
    watcher.stage_started("project", None, 0)
    watcher.closed()
    assert watcher.progress is None


def test_the_watcher_is_the_one_for_where_lines_go():
    assert isinstance(watcher_for(Console(file=io.StringIO(), force_terminal=True)), TerminalWatcher)
    assert isinstance(watcher_for(Console(file=io.StringIO())), LogWatcher)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"), (99.6, "2 min"), (3569, "59 min"),
        (3571, "1 h 00 min"), (11_100, "3 h 05 min"), (86_100, "23 h 55 min"), (86_399, "1 d 0 h"),
        (187_200, "2 d 4 h"),
    ],
)  # fmt: skip
def test_durations_are_told_as_people_tell_them(seconds, told):
    assert tell_duration(seconds) == told
