"""Stops a model that cannot write what the recipe asks for, before all articles are paid for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lit_sft.synthesis.parsing import REASONS
from lit_sft.synthesis.pipeline import Outcome
from lit_sft.synthesis.reading import Subject

_SIZE = 20
"""Subjects of the trial."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A subject, and how many before it can be asked about; None if it cannot."""

    number: int | None
    subject: Subject


class Trial:
    """Asks about the first subjects; about the others once any of those has not failed by the form of its replies.

    Which subjects are asked about depends on their replies alone, not on the order in which these came. Thread-safe.

    Args:
        ask: Asks about a subject.
        kind: What a subject is, such as `article`.

    Attributes:
        stopped: Why the others are not asked about; empty while they may be.
    """

    def __init__(self, ask: Callable[[Subject], Outcome], kind: str) -> None:
        self.stopped = ""
        self._ask, self._kind = ask, kind
        self._failed: dict[int, str] = {}
        self._is_over = threading.Event()
        self._lock = threading.Lock()

    @staticmethod
    def numbered(subjects: Iterable[Subject]) -> Iterator[Numbered]:
        """The subjects, for `outcome`, which must start them in this order."""
        number = 0
        for subject in subjects:
            yield Numbered(None if subject.fault else number, subject)
            number += not subject.fault

    def outcome(self, each: Numbered) -> Outcome:
        """What became of a subject."""
        if each.number is None:
            return self._ask(each.subject)
        if each.number >= _SIZE:
            self._is_over.wait()
            return Outcome(each.subject, is_reached=False) if self.stopped else self._ask(each.subject)
        outcome: Outcome | None = None
        try:
            outcome = self._ask(each.subject)
        finally:
            self._count(each.number, outcome)
        return outcome

    def _count(self, number: int, outcome: Outcome | None) -> None:
        if outcome is None or outcome.fault not in REASONS:
            self._is_over.set()
            return
        with self._lock:
            self._failed[number] = outcome.reason
            if len(self._failed) == _SIZE:
                self.stopped = (
                    f"requests stopped: no reply about the first {_SIZE} {self._kind}s has the form that the recipe "
                    f"asks for; what was wrong with the first: {self._failed[0]} Use another model, or change its "
                    "settings, such as --model.max_tokens."
                )
                self._is_over.set()
