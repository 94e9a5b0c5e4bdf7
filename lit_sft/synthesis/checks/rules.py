"""Every check by name, and what the three kinds of them are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.asking import Ask
from lit_sft.synthesis.checks.duplicates import Duplicates
from lit_sft.synthesis.checks.evaluation_items import EvaluationItems
from lit_sft.synthesis.checks.grounded import Grounded
from lit_sft.synthesis.checks.judge import Judge
from lit_sft.synthesis.checks.language import SameLanguage
from lit_sft.synthesis.checks.lengths import Lengths
from lit_sft.synthesis.checks.references import References
from lit_sft.synthesis.checks.refusals import Refusals
from lit_sft.synthesis.checks.related import Related
from lit_sft.synthesis.checks.self_answered import SelfAnswered


class Rule(Protocol):
    """A rule about single conversations: a frozen dataclass of its options."""

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""


class AskingRule(Protocol):
    """A rule that asks a model about single conversations."""

    def __call__(self, candidate: Candidate, ask: Ask) -> str:
        """Why a conversation is refused; empty if it is not."""


class Finder(Protocol):
    """What finds conversations that repeat an accepted one."""

    def find(self, candidate: Candidate) -> str:
        """Which one it repeats; empty if none."""

    def add(self, candidate: Candidate) -> None:
        """Remember an accepted conversation."""


class SetRule(Protocol):
    """A rule about the whole set of conversations."""

    def finder(self) -> Finder:
        """A finder that has seen nothing yet."""


RULES: dict[str, Callable[..., Rule]] = {
    "lengths": Lengths,
    "language": SameLanguage,
    "refusals": Refusals,
    "references": References,
    "self_answered": SelfAnswered,
    "related": Related,
    "grounded": Grounded,
    "evaluation_items": EvaluationItems,
}
"""The rules about single conversations."""

ASKING_RULES: dict[str, Callable[..., AskingRule]] = {"judge": Judge}
"""The rules that ask a model. They come after those that do not."""

SET_RULES: dict[str, Callable[..., SetRule]] = {"duplicates": Duplicates}
"""The rules about the whole set. They come last."""

ALL: dict[str, Callable[..., Any]] = {**RULES, **ASKING_RULES, **SET_RULES}
"""All rules, in the order in which they are best applied."""
