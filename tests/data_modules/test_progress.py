from __future__ import annotations

import sys
from itertools import pairwise

import pytest

from data_modules.progress import Pace, Progress, duration, pace_in_words, with_progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_ten_seconds_at_first_and_at_most_five_minutes_apart() -> None:
    clock = Clock()
    pace, due = Pace(clock), []
    for second in range(86_400):
        clock.now = float(second)
        if pace.is_due():
            due.append(second)
    assert due[:3] == [10, 20, 30]
    assert max(after - before for before, after in pairwise(due)) <= 301
    assert len(due) < 500  # over a whole day


def test_long_work_writes_lines_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("encoding train", "conversations", 4_000, clock) as progress:
        for _ in range(40):
            clock.now += 1
            progress.update(100)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "encoding train: 1,000 of 4,000 conversations, 100 a second, 30 s left",
        "encoding train: 2,000 of 4,000 conversations, 100 a second, 20 s left",
        "encoding train: 3,000 of 4,000 conversations, 100 a second, 10 s left",
        "encoding train: 4,000 of 4,000 conversations, 100 a second, 0 s left",
        "encoding train: 4,000 conversations in 40 s",
    ]


def test_slow_work_is_counted_a_minute_and_one_in_the_singular(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Progress("synthesis", "articles", None, clock) as progress:
        clock.now += 60.5
        progress.update()
    assert capsys.readouterr().err.splitlines() == [
        "synthesis: 1 article, 59.5 an hour",
        "synthesis: 1 article in 60 s",
    ]


@pytest.mark.parametrize(
    ("rate", "text"),
    [(2_134.5, "2,134 a second"), (12.34, "12.3 a second"), (0.9, "54 a minute"), (0.001, "3.6 an hour")],
)
def test_rates_are_read_at_a_glance(rate: float, text: str) -> None:
    assert pace_in_words(rate) == text


def test_short_work_writes_nothing_to_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress(range(3), "answering", "rows", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(with_progress(range(3), "answering", "rows", 3))
    assert "answering:   0%|" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")])
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text
