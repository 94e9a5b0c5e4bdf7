"""A report as SARIF 2.1.0, the format in which code hosts and editors show findings of linters.

Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lit_sft import __version__
from lit_sft.lint.findings import Found, Report
from lit_sft.lint.rules import RULES, Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"

_PLACE = re.compile(r"(?P<file>.*?):(?P<row>row )?(?P<number>\d+)", re.DOTALL)


def to_sarif(report: Report, default_file: str) -> dict[str, Any]:
    """A report as a SARIF log: one result for each example of a finding.

    Args:
        report: The report.
        default_file: The file that findings about settings are attached to, because code hosts need one.
    """
    found = report.findings.found()
    places = {name: index for index, name in enumerate(RULES)}
    results = [
        _result(rule, places[rule.name], example, report.findings.counts[rule.name], default_file)
        for rule in found
        for example in report.findings.examples[rule.name]
    ]
    driver = {
        "name": "lit_sft lint",
        "version": __version__,
        "rules": [_rule(rule) for rule in RULES.values()],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": True,
                "toolConfigurationNotifications": [
                    {"level": "note", "message": {"text": f"rule {rule} was not run: {reason}"}}
                    for rule, reason in report.findings.not_run.items()
                ],
            }
        ],
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.name,
        "shortDescription": {"text": rule.title},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(rule: Rule, index: int, found: Found, count: int, default_file: str) -> dict[str, Any]:
    quoted = f" “{found.quote}”" if found.quote else ""
    rows = f" ({count:,} rows in all)" if count > 1 else ""
    return {
        "ruleId": rule.name,
        "ruleIndex": index,
        "level": rule.severity,
        "message": {"text": f"{rule.title} Here: {found.detail}.{quoted} {rule.fix}{rows}"},
        "locations": [{"physicalLocation": _location(found.origin or default_file)}],
    }


def _location(origin: str) -> dict[str, Any]:
    place = _PLACE.fullmatch(origin)
    file = Path(place["file"] if place else origin)
    location: dict[str, Any] = {
        "artifactLocation": {"uri": file.as_uri() if file.is_absolute() else quote(file.as_posix())}
    }
    if place and not place["row"]:  # a row of a parquet file is not a line
        location["region"] = {"startLine": max(1, int(place["number"]))}
    return location
