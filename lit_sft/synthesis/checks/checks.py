"""`Checks` applies a list of rules to the conversations that a model made, and counts what each refuses."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, cast

from data_modules.cleaning.options import help_of, read_rule
from data_modules.errors import UserError
from data_modules.wording import kind_of
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.asking import Ask
from lit_sft.synthesis.checks.chinese import in_simplified
from lit_sft.synthesis.checks.evaluation_items import EvaluationItems
from lit_sft.synthesis.checks.rules import ALL, ASKING_RULES, RULES, SET_RULES

_VERSION = 3
"""Raised whenever a rule judges a pair differently."""

_ORDER = "rules that ask a model come after those that do not, and duplicates, found among accepted pairs, last"

_AS_WRITTEN = ("lengths", "language", "evaluation_items")
"""Rules that are given traditional Chinese as it is; the others know simplified words."""

_EXAMPLE = "{lengths: {question: [2, 30]}}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a conversation is refused.

    Attributes:
        rule: Name of the rule.
        reason: What it found, in a few words.
    """

    rule: str
    reason: str


class Checks:
    """Applies rules to conversations until one refuses.

    Rules about single conversations come first, those about the whole set (duplicates) last, so that only what is
    accepted counts as seen. `alone` may be called in any thread, `settle` in reading order in one; `refusal` is both.

    Args:
        rules: The name and the rule of each, in order. `from_settings` reads them from YAML values.
        ask: Sends messages to a model and returns its reply; for rules that ask one.
    """

    def __init__(self, rules: Sequence[tuple[str, Any]], ask: Ask | None = None) -> None:
        self._rules = tuple(rules)
        self._ask = ask
        self._finders = [(name, rule.finder()) for name, rule in rules if name in SET_RULES]
        self._judged = dict.fromkeys(self.names, 0)
        self._refused = dict.fromkeys(self.names, 0)

    @classmethod
    def from_settings(cls, items: Any, place: str = "checks", ask: Ask | None = None) -> Checks:
        """The checks of a list of rules.

        Args:
            items: Names of rules, or mappings of one name to its options, in the order in which they are applied.
            place: The option as the user would type it, for error messages.
            ask: Sends messages to a model and returns its reply; required if a rule asks one.

        Raises:
            UserError: If a rule or an option is unknown, a value is impossible, or the order is.
        """
        rules = read_checks(items, place)
        asking = [name for name, _ in rules if name in ASKING_RULES]
        if asking and ask is None:
            raise UserError(f"{place} {asking[0]}: asks a model, and there is none here; leave it out.")
        return cls(rules, ask)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rules, in order."""
        return tuple(name for name, _ in self._rules)

    def alone(self, candidate: Candidate) -> Refusal | None:
        """What the rules about single conversations say. Thread-safe; does not count.

        Raises:
            EndpointError: If a rule asks a model, and the request fails.
        """
        plain = in_simplified(candidate)
        for name, rule in self._rules:
            reason = rule(candidate if name in _AS_WRITTEN else plain) if name in RULES else ""
            if name in ASKING_RULES:
                assert self._ask is not None
                reason = rule(candidate, self._ask)
            if reason:
                return Refusal(name, reason)
        return None

    def settle(self, candidate: Candidate, found: Refusal | None) -> Refusal | None:
        """The decision about the next conversation in reading order, which is counted.

        Args:
            candidate: The conversation.
            found: What `alone` said of it.
        """
        refusal = found or self._repeated(in_simplified(candidate))
        for name in self.names:
            self._judged[name] += 1
            if refusal and refusal.rule == name:
                self._refused[name] += 1
                break
        return refusal

    def refusal(self, candidate: Candidate) -> Refusal | None:
        """Judge and count the next conversation in reading order.

        Raises:
            EndpointError: If a rule asks a model, and the request fails.
        """
        return self.settle(candidate, self.alone(candidate))

    def counts(self) -> dict[str, dict[str, int]]:
        """For each rule, in order, how many conversations reached it (`judged`), and how many it refused."""
        return {name: {"judged": self._judged[name], "refused": self._refused[name]} for name in self.names}

    def identity(self) -> list[Any]:
        """What decides which conversations are refused, as JSON values."""
        return [{"checks": _VERSION}, *([name, _identity(rule)] for name, rule in self._rules)]

    def describe(self) -> list[tuple[str, str]]:
        """The name of each rule, and what it does with its options, in order."""
        return [(name, _described(rule)) for name, rule in self._rules]

    def _repeated(self, candidate: Candidate) -> Refusal | None:
        """What the rules about the set say; the conversation is remembered only if all accept it."""
        for name, finder in self._finders:
            if reason := finder.find(candidate):
                return Refusal(name, reason)
        for _, finder in self._finders:
            finder.add(candidate)
        return None


def read_checks(items: Any, place: str) -> list[tuple[str, Any]]:
    """Read a list of rules; see `Checks.from_settings`."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise UserError(f"{place} is {kind_of(items, 'a mapping')}; expected a list of rules: [lengths, language].")
    rules: list[tuple[str, Any]] = [
        read_rule(item, f"{place}[{index}]", place, ALL, _EXAMPLE) for index, item in enumerate(items)
    ]
    names = [name for name, _ in rules]
    for name, later in pairwise(names):
        if _stage(name) > _stage(later):
            raise UserError(f"{place}: {name} is before {later}; {_ORDER}, so list {name} after {later}.")
    if again := next((name for index, name in enumerate(names) if name in names[:index]), ""):
        raise UserError(f"{place}: {again} is listed twice; list it once.")
    return rules


def _stage(name: str) -> int:
    return (name in ASKING_RULES) + 2 * (name in SET_RULES)


def checks_table() -> str:
    """All rules as a Markdown table with their options, for docs/synthesis.md."""
    rows = ["| rule | what it refuses | options |", "|---|---|---|"]
    for name, rule in ALL.items():
        options = "<br>".join(f"`{key}` ({default}): {help}" for key, default, help in help_of(cast(type, rule)))
        rows.append(f"| `{name}` | {_says(rule)} | {options} |")
    return "\n".join(rows)


def _says(rule: Any) -> str:
    return " ".join(inspect.cleandoc(rule.__doc__).split())


def _identity(rule: Any) -> dict[str, Any]:
    return rule.identity() if isinstance(rule, EvaluationItems) else _options(rule)


def _options(rule: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(rule).items()}


def _described(rule: Any) -> str:
    values = _options(rule)
    options = ", ".join(f"{each.name} {values[each.name]}" for each in fields(rule))
    return f"{_says(rule)} ({options})" if options else _says(rule)
