"""A report as a page of its own and as Markdown. What data and models wrote is escaped in both."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from lit_sft.printable import printable

# what HTML or Markdown could read, links and addresses among it; an entity is text to both
_MARKS = re.compile(r"[&<>*_`\[\]#|~!\\@]|:(?=//)|(?<=www)\.")
_LONGEST_CELL = 600
_LONGEST_FIGURE = 30
_VERDICTS = ("better", "worse")


@dataclass(frozen=True)
class Table:
    """A table of a report: all cells are text.

    Attributes:
        title: Above it.
        header: Of its columns.
        rows: Its first column names them.
        notes: Below it.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What the pages show.

    Attributes:
        question: What was asked.
        answers: In plain words.
        design: What was run, a fact a line.
        tables: In order.
        charts: Titles and files.
    """

    question: str
    answers: list[str]
    design: list[str]
    tables: list[Table]
    charts: list[tuple[str, Path]]


def render_markdown(report: Report) -> str:
    """The report as Markdown; its pictures lie beside it."""
    parts = [f"# {_cell(report.question)}", *(f"{_cell(answer)}\n" for answer in report.answers)]
    parts += ["## Design", *(f"- {_cell(line)}" for line in report.design)]
    parts += [f"\n![{_cell(title)}]({path.name})" for title, path in report.charts]
    for table in report.tables:
        parts += [f"\n## {_cell(table.title)}\n", _row(table.header), "|" + "---|" * len(table.header)]
        parts += [*map(_row, table.rows), *(f"\n{_cell(note)}" for note in table.notes)]
    return "\n".join(parts) + "\n"


def render_html(report: Report) -> str:
    """The report as one HTML document: no scripts, nothing to fetch."""
    answers = "".join(f"<p>{escape(_shown(answer))}</p>" for answer in report.answers)
    design = "".join(f"<li>{escape(_shown(line))}</li>" for line in report.design)
    charts = "".join(
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}"><figcaption>{escape(title)}</figcaption></figure>'
        for title, path in report.charts
    )
    tables = "".join(map(_table, report.tables))
    return _PAGE.format(
        title=escape(_shown(report.question)),
        style=_STYLE,
        answers=answers,
        design=design,
        charts=charts,
        tables=tables,
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(_shown(cell))}</th>" for cell in table.header)
    rows = "".join(f"<tr><th>{escape(_shown(row[0]))}</th>{''.join(map(_data, row[1:]))}</tr>" for row in table.rows)
    notes = "".join(f"<p class=note>{escape(_shown(note))}</p>" for note in table.notes)
    return (
        f"<section><h2>{escape(_shown(table.title))}</h2><div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{notes}</section>"
    )


def _data(cell: str) -> str:
    kind = cell if cell in _VERDICTS else "text" if len(cell) > _LONGEST_FIGURE else ""
    return f"<td{f' class={kind}' if kind else ''}>{escape(_shown(cell))}</td>"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", _shown(text))


def _shown(text: str) -> str:
    text = printable(text)
    return (
        text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}… (+{len(text) - _LONGEST_CELL:,} characters)"
    )


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.answer { border-left: 4px solid #2a7; padding: .2rem 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; vertical-align: top; }
th:first-child { text-align: left; }
tbody th { min-width: 8rem; }
td { white-space: nowrap; }
td.text { white-space: normal; text-align: left; min-width: 12rem; overflow-wrap: anywhere; }
td.better { color: #183; font-weight: 600; } td.worse { color: #c22; font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: white; }
figcaption, .note { color: #777; font-size: .85rem; }
@media print {
  body { max-width: none; font-size: 10px; } section, figure { break-inside: avoid; } .wide { overflow: visible; }
}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<div class="answer">{answers}</div>
<h2>Design</h2>
<ul>{design}</ul>
{charts}
{tables}
</body>
</html>
"""
