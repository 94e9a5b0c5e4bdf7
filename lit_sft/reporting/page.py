"""A report as one HTML page, as Markdown and as a summary for the terminal. Text from data and models is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table as Grid

from lit_sft.console import cell as plain_cell
from lit_sft.console import print_line_on
from lit_sft.files import write_text
from lit_sft.printable import excerpt
from lit_sft.reporting.templates import render

# everything that HTML or Markdown could interpret, links and addresses included; an entity is text to both
_MARKS = re.compile(r"[&<>*_`\[\]#|~!\\@]|:(?=//)|(?<=www)\.")
_LONGEST_CELL = 600
_LONGEST_NUMBER = 30
_excerpt = partial(excerpt, limit=_LONGEST_CELL)
_TONES = {1: "better", -1: "worse", 0: ""}


@dataclass(frozen=True)
class Finding:
    """A cell in the colour of what was found.

    Attributes:
        text: The cell's text.
        sense: 1 for better, -1 for worse, 0 for neither.
    """

    text: str
    sense: int


Cell = str | Finding


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: Heading.
        header: Column names.
        rows: Cells; the first of each row is the row's name.
        notes: Lines below the table.
        is_text: Whether the cells are sentences, such as answers, not numbers.
    """

    title: str
    header: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    is_text: bool = False


@dataclass(frozen=True)
class Report:
    """What a report shows, the answer first.

    Attributes:
        question: The question asked.
        answers: The answer, in sentences.
        design: How it was done, one fact per line; folded on the page.
        tables: All the numbers; folded on the page.
        charts: Titles and files of pictures; the first is shown, the others are folded on the page.
        headline: The few metrics that matter, shown on the page and on the terminal.
        examples: Answers side by side, shown on the page.
    """

    question: str
    answers: list[str]
    design: list[str]
    tables: list[Table]
    charts: list[tuple[str, Path]]
    headline: Table | None = None
    examples: list[Table] = field(default_factory=list)


def write_pages(report: Report, folder: Path) -> Path:
    """Write report.html and report.md; returns the HTML page."""
    page = folder / "report.html"
    write_text(folder / "report.md", render_markdown(report))
    write_text(page, render_html(report))
    return page


def print_summary(console: Console, report: Report, page: Path) -> None:
    """Print the answer, the metrics that matter and where the page is."""
    print_line_on(console, f"\n{report.question}", keep_lines=True)
    for answer in report.answers:
        print_line_on(console, f"  {answer}")
    if report.headline:
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for number, name in enumerate(report.headline.header):
            grid.add_column(plain_cell(name, console), justify="right" if number else "left", overflow="fold")
        for row in report.headline.rows:
            grid.add_row(*(_terminal_cell(each, console) for each in row))
        console.print()
        console.print(grid)
    print_line_on(console, f"\nreport  {page}", keep_lines=True)


def _terminal_cell(cell: Cell, console: Console) -> Any:
    text = plain_cell(_text(cell), console)
    if isinstance(cell, Finding) and cell.sense:
        text.stylize("green" if cell.sense > 0 else "bold red")
    return text


def render_markdown(report: Report) -> str:
    """The report as Markdown; its pictures are in the same folder."""
    parts = [f"# {escaped_markdown(report.question)}", *(f"{escaped_markdown(answer)}\n" for answer in report.answers)]
    parts += [f"\n![{escaped_markdown(title)}]({path.name})" for title, path in report.charts]
    headline = [report.headline] if report.headline else []
    for table in (*headline, *report.examples, *report.tables):
        parts += [f"\n## {escaped_markdown(table.title)}\n", _row([*table.header]), "|" + "---|" * len(table.header)]
        parts += [*map(_row, table.rows), *(f"\n{escaped_markdown(note)}" for note in table.notes)]
    parts += ["\n## How it was done\n", *(f"- {escaped_markdown(line)}" for line in report.design)]
    return "\n".join(parts) + "\n"


def render_html(report: Report) -> str:
    """The report as one HTML document, without scripts or external resources."""
    charts = [(title, _data_uri(path)) for title, path in report.charts]
    return render("report.html", FILTERS, report=report, charts=charts)


def _data_uri(path: Path) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(path.read_bytes()).decode()


def _tone(cell: Cell) -> str:
    """The CSS class of a cell."""
    if isinstance(cell, Finding):
        return _TONES[cell.sense]
    return "text" if len(cell) > _LONGEST_NUMBER else ""


def _text(cell: Cell) -> str:
    return _excerpt(cell.text if isinstance(cell, Finding) else cell)


FILTERS: dict[str, Callable[..., str]] = {"excerpt": _excerpt, "text": _text, "tone": _tone}
"""What the macros of report.html apply to names and cells."""


def _row(cells: list[Cell]) -> str:
    return "| " + " | ".join(escaped_markdown(_text(cell)) for cell in cells) + " |"


def escaped_markdown(text: str) -> str:
    """A text on one line of Markdown, shortened, in which nothing is interpreted."""
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", _excerpt(text))
