"""What pairs cost as a run goes on: cumulated counts at a bounded number of points."""

from __future__ import annotations

_MOST = 200
"""Points kept at most; every second one is dropped when there are more."""


class CostCurve:
    """Cumulated counts after every article, thinned out so that memory does not grow with their number."""

    def __init__(self) -> None:
        self._points: list[list[int]] = []
        self._last = [0, 0, 0, 0, 0]
        self._step = 1

    def add(self, *, pairs_read: int, pairs_accepted: int, tokens_read: int, tokens_written: int) -> None:
        """Count what one article gave, in reading order.

        Args:
            pairs_read: Pairs that the model made of it.
            pairs_accepted: Those that were accepted.
            tokens_read: Tokens of all its prompts.
            tokens_written: Tokens of all replies about it.
        """
        new = (1, pairs_read, pairs_accepted, tokens_read, tokens_written)
        self._last = [total + each for total, each in zip(self._last, new, strict=True)]
        if self._last[0] % self._step:
            return
        self._points.append(self._last)
        if len(self._points) == _MOST:
            self._step *= 2
            self._points = [point for point in self._points if not point[0] % self._step]

    def points(self) -> list[list[int]]:
        """Articles, pairs read, pairs accepted, tokens read, tokens written; the last point is the total."""
        is_total = self._points and self._points[-1][0] == self._last[0]
        return [*self._points, *([] if is_total or not self._last[0] else [self._last])]
