"""The ledger of cleaning in the terminal: a table, and examples of what each rule did."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_modules.cleaning.ledger import HEADER, CleaningLedger
from lit_sft.console import cell, print_line_on


def print_cleaning(console: Console, ledger: CleaningLedger, title: str, *, examples: bool = True) -> None:
    """Print what every rule changed and dropped.

    Args:
        console: Where to print.
        ledger: The ledger.
        title: What was cleaned.
        examples: Whether to show what each rule did to its first records.
    """
    table = Table(title=cell(f"{title}: {ledger.summary()}", console), title_justify="left")
    table.add_column(HEADER[0], no_wrap=True)
    for name in HEADER[1:]:
        table.add_column(name, justify="right")
    *rows, total = ledger.rows()
    for row in rows:
        table.add_row(*(cell(text, console) for text in row))
    table.add_section()
    table.add_row(*total)
    console.print(table)
    if examples:
        _print_examples(console, ledger)


def _print_examples(console: Console, ledger: CleaningLedger) -> None:
    for label, counts in sorted(ledger.rules.items(), key=lambda item: item[1].position):
        if counts.examples:
            print_line_on(console, label)
        for example in counts.examples:
            result = f"dropped: {example.reason}" if example.reason else f"→ {example.after}"
            lines = (f"  {example.origin}", f"      {example.before}", f"    {result}")
            for line in lines:
                console.print(Text.assemble(cell(line, console)), soft_wrap=True)
