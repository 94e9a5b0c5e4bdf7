"""A report as one HTML page, without scripts: rules, counts, and examples with their tokens. All text is escaped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.example import Example
from data_modules.rendering.segments import SegmentKind
from lit_sft.files import write_text
from lit_sft.lint.findings import Found, Report
from lit_sft.lint.labels import LabelledRow
from lit_sft.lint.terminal import summary
from lit_sft.printable import printable
from lit_sft.reporting.templates import render
from lit_sft.reporting.token_markup import token_markup
from lit_sft.reporting.token_view import MARKS_LEGEND, MaskView, ShownExample, show_example

_MOST_TOKENS = 400
"""Tokens shown of an example."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """An example of a finding, and its tokens if it has any."""

    found: Found
    tokens: ShownExample | None


def write_page(path: str, report: Report, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Write the page.

    Args:
        path: The file to write.
        report: The report.
        tokenizer: The tokenizer of the examples. None: tokens are not shown.
    """
    write_text(Path(path), page(report, tokenizer))


def page(report: Report, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """The report as one HTML document."""
    findings = report.findings
    examples = {
        rule.name: [_Shown(found, _tokens(found, tokenizer)) for found in findings.examples[rule.name]]
        for rule in findings.found()
    }
    kinds = sorted(
        {row.kind for shown in examples.values() for each in shown if each.tokens for row in each.tokens.rows}
    )
    return render(
        "lint.html",
        report=report,
        findings=findings,
        examples=examples,
        summary=summary(report),
        kinds=kinds,
        marks=MARKS_LEGEND,
        **token_markup(),
    )


def _tokens(found: Found, tokenizer: PreTrainedTokenizerBase | None) -> ShownExample | None:
    row = found.row
    if row is None or tokenizer is None:
        return None
    length = min(len(row.ids), _MOST_TOKENS)
    example = _cut(row.example, length) if row.example else _of_dump(row, found.origin, length)
    shown = show_example(example, tokenizer, [])
    name = "supervised in training" if row.example else "labels of the dump"
    more = f"first {length:,} of {len(row.ids):,} tokens" if length < len(row.ids) else ""
    return replace(shown, views=[MaskView(name, row.weights[:length])], shortened=more, origin=printable(found.origin))


def _cut(example: Example, length: int) -> Example:
    return replace(
        example,
        input_ids=example.input_ids[:length],
        kinds=example.kinds[:length],
        turns=example.turns[:length],
    )


def _of_dump(row: LabelledRow, origin: str, length: int) -> Example:
    """A row of a dump as an example: nothing is known of its kinds but what the labels and the template say."""
    kinds = np.where(row.is_supervised, SegmentKind.TEXT, SegmentKind.USER)
    kinds = np.where(row.is_template & ~row.is_supervised, SegmentKind.TEMPLATE, kinds)
    kinds = np.where(row.is_padding, SegmentKind.PADDING, kinds)
    # neighbours of one kind but another weight would be joined
    turns = np.cumsum(np.diff(row.is_supervised, prepend=row.is_supervised[:1]))
    return Example(
        input_ids=row.ids[:length].astype(np.int32),
        kinds=kinds[:length].astype(np.uint8),
        turns=turns[:length].astype(np.int16),
        origin=origin,
    )
