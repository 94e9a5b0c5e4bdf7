"""Progress of long work: a bar in a terminal, occasional lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0
_LINES = 50
"""Roughly how many lines are logged before the pauses reach their maximum."""


class Pace:
    """Decides when the next line is due: first after ten seconds, then at growing intervals of up to five minutes.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    def is_due(self) -> bool:
        """Whether to write a line now. If so, the next pause starts."""
        pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self.seconds / _LINES))
        if self._clock() - self._last < pause:
            return False
        self._last = self._clock()
        return True


class Progress:
    """Shows progress on stderr. In a log file, work of a few seconds shows nothing.

    Args:
        what: What is being done, such as "encoding train".
        unit: What is counted, in the plural.
        total: How many there are, if known.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, what: str, unit: str, total: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what, self.unit, self.total = what, unit, total
        self._count = 0
        self._pace, self._has_written = Pace(clock), False
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(desc=what, unit=f" {unit}", total=total, leave=False) if is_terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._has_written and kind is None:
            self._write(f"{self.what}: {self._done()} in {duration(self._pace.seconds)}")

    def update(self, count: int = 1) -> None:
        """Add to the count."""
        self._count += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._pace.is_due():
            self._write(self._line())

    def _line(self) -> str:
        rate = self._count / self._pace.seconds
        done = self._done() if self.total is None else f"{self._count:,} of {self.total:,} {self.unit}"
        left = "" if self.total is None else f", {duration((self.total - self._count) / rate)} left"
        return f"{self.what}: {done}, {pace_in_words(rate)}{left}"

    def _done(self) -> str:
        return f"{self._count:,} {self.unit.removesuffix('s') if self._count == 1 else self.unit}"

    def _write(self, line: str) -> None:
        self._has_written = True
        print(line, file=sys.stderr, flush=True)


def with_progress(items: Iterable[Item], what: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show progress; see `Progress`."""
    with Progress(what, unit, total) as progress:
        for item in items:
            yield item
            progress.update()


def pace_in_words(rate: float) -> str:
    """A rate in readable form, per second unless it is too low for that: `12 a second`, `1.5 an hour`.

    Args:
        rate: A second.
    """
    unit = "second"
    for longer in ("minute", "hour"):
        if rate < 1:
            rate, unit = rate * 60, longer
    number = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{number} {'an' if unit == 'hour' else 'a'} {unit}"


def duration(seconds: float) -> str:
    """A duration in readable form: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
