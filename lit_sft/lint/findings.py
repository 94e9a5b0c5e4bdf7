"""What lint found: counts by rule, with the first examples of each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from lit_sft.lint.labels import LabelledRow
from lit_sft.lint.rules import RULES, SEVERITIES, Rule
from lit_sft.printable import excerpt

EXAMPLES = 3
"""Examples shown of each rule."""

_LONGEST_QUOTE = 160


@dataclass(frozen=True, slots=True)
class Found:
    """One place where a rule fired.

    Attributes:
        origin: Where it is, `file:line`; empty for a finding about the settings.
        detail: What was found there.
        quote: A few words of the text, made printable; may be empty.
        row: Its tokens, if it was encoded.
    """

    origin: str
    detail: str
    quote: str = ""
    row: LabelledRow | None = None


@dataclass
class Findings:
    """Collects findings.

    Attributes:
        rules: The rules that are run.
        counts: Number of rows by rule.
        examples: The first of them.
        not_run: Why a chosen rule was not run, by rule.
    """

    rules: frozenset[str]
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    not_run: dict[str, str] = field(default_factory=dict)

    def add(self, rule: str, origin: str, detail: str, quote: str = "", row: LabelledRow | None = None) -> None:
        """Count a row for a rule, unless the rule is switched off.

        Args:
            rule: A name in RULES.
            origin: Where the row is.
            detail: What was found.
            quote: A few words of its text, as they are.
            row: Its tokens, if it was encoded.
        """
        if rule not in self.rules:
            return
        self.counts[rule] += 1
        if len(self.examples[rule]) < EXAMPLES:
            self.examples[rule].append(Found(origin, detail, excerpt(quote, _LONGEST_QUOTE), row))

    def count(self, rule: str, num: int = 1) -> None:
        """Count rows for a rule without an example, unless the rule is switched off."""
        if rule in self.rules:
            self.counts[rule] += num

    def skip(self, rules: Iterable[str], reason: str) -> None:
        """Note why rules cannot be run; those that are switched off are not listed."""
        self.not_run |= {rule: reason for rule in rules if rule in self.rules and rule not in self.not_run}

    def skip_unfit(self, subjects: Collection[str], reason: str) -> None:
        """Switch off the rules about other subjects; they are listed only if the user chose rules by name."""
        unfit = {name for name in self.rules if RULES[name].subject in subjects}
        if len(self.rules) < len(RULES):
            self.skip(unfit, reason)
        self.rules -= unfit

    def wants(self, *rules: str) -> bool:
        """Whether any of these rules is run."""
        return not self.rules.isdisjoint(rules)

    def found(self) -> list[Rule]:
        """The rules that fired, the most serious and most frequent first."""
        return sorted(
            (RULES[name] for name, count in self.counts.items() if count),
            key=lambda rule: (SEVERITIES.index(rule.severity), -self.counts[rule.name], rule.name),
        )

    def num_of(self, severity: str) -> int:
        """How many rules of a severity fired."""
        return sum(rule.severity == severity for rule in self.found())


@dataclass(frozen=True)
class Report:
    """The outcome of a lint.

    Attributes:
        subject: What was linted, in words.
        rows: Rows read, by split.
        findings: What was found.
        seconds: Time it took, without loading libraries and the tokenizer.
        remarks: Settings that matter, such as the template and the mask.
    """

    subject: str
    rows: dict[str, int]
    findings: Findings
    seconds: float
    remarks: list[str] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """Rows of all splits."""
        return sum(self.rows.values())

    def status(self, *, strict: bool) -> int:
        """The exit status: 1 for an error, or with `strict` for a warning; otherwise 0."""
        return int(self.findings.num_of("error") > 0 or (strict and self.findings.num_of("warning") > 0))

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "subject": self.subject,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "settings": self.remarks,
            **{f"{severity}s": self.findings.num_of(severity) for severity in SEVERITIES},
            "findings": [
                {
                    "rule": rule.name,
                    "severity": rule.severity,
                    "rows": self.findings.counts[rule.name],
                    "title": rule.title,
                    "fix": rule.fix,
                    "examples": [
                        {"origin": found.origin, "detail": found.detail, "quote": found.quote}
                        for found in self.findings.examples[rule.name]
                    ],
                }
                for rule in self.findings.found()
            ],
            "not_run": self.findings.not_run,
        }
