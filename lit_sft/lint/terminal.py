"""Prints a report in the terminal."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.text import Text

from data_modules.wording import counted
from lit_sft.console import cell, print_line_on
from lit_sft.lint.findings import Report
from lit_sft.lint.rules import RULES, SEVERITIES, Rule

_COLOURS = {"error": "bold red", "warning": "bold yellow", "note": "bold blue"}


def print_report(console: Console, report: Report) -> None:
    """Print the findings with their examples, then the rules that were not run, then a summary."""
    for rule in report.findings.found():
        _print_finding(console, report, rule)
    for reason, rules in _by_reason(report).items():
        print_line_on(console, f"not run ({reason}): {', '.join(rules)}")
    print_line_on(console, summary(report))


def summary(report: Report) -> str:
    """One line: what was linted, how fast, and how much was found."""
    rows = ", ".join(f"{count:,} {split}" for split, count in report.rows.items())
    speed = report.num_rows / report.seconds if report.seconds else 0.0
    found = ", ".join(counted(report.findings.num_of(severity), severity) for severity in SEVERITIES)
    return ". ".join(
        [
            f"{found} in {counted(report.num_rows, 'row')}{f' ({rows})' if len(report.rows) > 1 else ''}",
            f"{report.seconds:.1f} s, {speed:,.0f} rows/s",
            *(["settings: " + ", ".join(report.remarks)] if report.remarks else []),
        ]
    )


def print_rules(console: Console) -> None:
    """Print every rule with its severity and what a finding means."""
    for rule in RULES.values():
        print_line_on(console, f"{rule.name:24}{rule.severity:9}{rule.title}")


def _print_finding(console: Console, report: Report, rule: Rule) -> None:
    findings = report.findings
    heading = Text.assemble(
        (rule.severity, _COLOURS[rule.severity]), f" {rule.name}: {counted(findings.counts[rule.name], 'row')}"
    )
    console.print(heading)
    print_line_on(console, f"  {rule.title}")
    for found in findings.examples[rule.name]:
        quoted = f" “{found.quote}”" if found.quote else ""
        place = f"{found.origin}: " if found.origin else ""
        console.print(Text("    ") + cell(f"{place}{found.detail}{quoted}", console), soft_wrap=True)
    print_line_on(console, f"  fix: {rule.fix}")
    console.print()


def _by_reason(report: Report) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for rule, reason in report.findings.not_run.items():
        reasons[reason].append(rule)
    return reasons
