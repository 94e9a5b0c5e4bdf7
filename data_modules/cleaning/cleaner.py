"""`Cleaner` applies a list of rules to documents and says what each rule changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_modules.cleaning.duplicates import Duplicates, SetRule
from data_modules.cleaning.edits import Drop, apply_edits, excerpt
from data_modules.cleaning.ledger import CleaningLedger
from data_modules.cleaning.outcome import Change, Cleaned
from data_modules.cleaning.rules import Rule, identity_of, read_rules

EMPTY = "empty"
"""Label of the rule that follows those about single documents: a document without any text is dropped."""

_MOST_ROUNDS = 50
"""Most times a rule is applied. Once is not enough: outer brackets are empty only when the inner ones are gone."""


class Cleaner:
    """Applies rules to documents, one after the other.

    A cleaner can be pickled, so that worker processes can clean. The result depends on the text and the rules only.

    Args:
        rules: The name and the rule of each, in order. `from_settings` reads them from YAML values.
        set_rules: The same for rules about the whole set of documents, which `duplicates` applies.
    """

    def __init__(self, rules: Sequence[tuple[str, Rule]], set_rules: Sequence[tuple[str, SetRule]] = ()) -> None:
        self._rules, self._set_rules = tuple(rules), tuple(set_rules)
        first, last = _labels([name for name, _ in rules]), _labels([name for name, _ in set_rules])
        self.labels = (*first, EMPTY, *last)

    @classmethod
    def from_settings(cls, items: Any, place: str = "--data.cleaning") -> Cleaner:
        """The cleaner of a list of rules.

        Args:
            items: Names of rules, or mappings of one name to its options, in the order in which they are applied.
            place: The option as the user would type it, for error messages.

        Raises:
            UserError: If a rule or an option is unknown, or a value is impossible.
        """
        return cls(*read_rules(items, place))

    def identity(self) -> list[Any]:
        """What decides how texts are cleaned, as JSON values for cache keys."""
        return identity_of([*self._rules, *self._set_rules])

    def set_identity(self) -> list[Any]:
        """What decides the fingerprint of a text, and when two are alike, as JSON values."""
        return identity_of(self._set_rules)

    def ledger(self) -> CleaningLedger:
        """An empty ledger with a row for every rule."""
        return CleaningLedger.of(self.labels)

    @property
    def places_of_set_rules(self) -> list[tuple[str, int]]:
        """Label and position of each rule about the whole set, as in the ledger."""
        first = len(self._rules) + 1
        return [(self.labels[place], place) for place in range(first, first + len(self._set_rules))]

    def duplicates(self) -> Duplicates:
        """Applies the rules about the whole set to cleaned documents, which must come in reading order."""
        rules = zip(self.places_of_set_rules, self._set_rules, strict=True)
        return Duplicates([(label, place, rule) for (label, place), (_, rule) in rules])

    def clean(self, text: str) -> Cleaned:
        """Clean a document by the rules about single documents.

        Args:
            text: Any text.

        Returns:
            The clean text, or None if a rule dropped the document, and what each rule changed.
        """
        num_read = len(text)
        changes: list[Change] = []
        for position, (_, rule) in enumerate(self._rules):
            text, change = _applied(rule, text, self.labels[position], position)
            if change is not None:
                changes.append(change)
                if change.is_drop:
                    return Cleaned(None, num_read, 0, tuple(changes))
        if not text.strip():
            changes.append(Change(EMPTY, len(self._rules), len(text), is_drop=True, reason="no text is left"))
            return Cleaned(None, num_read, 0, tuple(changes))
        fingerprint = b"".join(rule.fingerprint(text) for _, rule in self._set_rules)
        opening = excerpt(text, 0) if fingerprint else ""
        return Cleaned(text, num_read, len(text), tuple(changes), fingerprint, opening)


def _labels(names: Sequence[str]) -> list[str]:
    """The names; a name that is listed again gets a number."""
    times = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if num == 1 else f"{name} ({num})" for name, num in zip(names, times, strict=True)]


def _applied(rule: Rule, old: str, label: str, position: int) -> tuple[str, Change | None]:
    """A text after a rule, and what the rule changed."""
    text, start, removed, added = old, -1, 0, 0
    for _ in range(_MOST_ROUNDS):
        found = rule(text)
        if isinstance(found, Drop):
            before = excerpt(old, 0)
            return text, Change(label, position, len(old), is_drop=True, before=before, reason=found.reason)
        if not found:
            break
        start = found[0][0] if start < 0 else start
        text, lost, gained = apply_edits(text, found)
        removed, added = removed + lost, added + gained
    if start < 0:
        return text, None
    return text, Change(label, position, removed, added, before=excerpt(old, start), after=excerpt(text, start))
