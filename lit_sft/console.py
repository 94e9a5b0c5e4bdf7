"""What commands print: lines and cells of tables as they are, whoever named what stands in them."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lit_sft.printable import printable


def say_on(console: Console, line: str, *, keep_lines: bool = False) -> None:
    """Print a line: nothing in it is markup, paths are not wrapped, and nothing in it steers the terminal."""
    console.print(printable(line, keep_lines=keep_lines), markup=False, highlight=False, soft_wrap=True)


def cell(text: str) -> Text:
    """A cell or title of a table, likewise."""
    return Text(printable(text))
