"""`python -m lit_sft tokenizer compare A B --data FILES`: compares tokenizers on text, words and all characters."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from lit_sft.console import cell, console, print_error_line, print_line_on
from lit_sft.files import write_json
from lit_sft.output_files import check_outputs
from lit_sft.reporting.page import Cell, Table
from lit_sft.settings.arguments import Arguments
from lit_sft.tokenization.arguments import add_reading_options, columns_of, num_bytes_of
from lit_sft.tokenization.compare_page import write_page
from lit_sft.tokenization.compare_tables import by_script, change_lines, overview, summary, words
from lit_sft.tokenization.comparison import Comparison, compare_tokenizers, to_json

_MOST_ROWS = 12
"""Rows of a table on the terminal."""


def main(argv: list[str]) -> None:
    """Compare tokenizers, print the figures, and write the requested reports.

    Args:
        argv: `compare` and its arguments.

    Raises:
        UserError: If an argument is wrong, a tokenizer cannot be loaded or the text cannot be read.
    """
    options = _parser().parse_args(argv[1:])
    check_outputs({"--json": options.json, "--html": options.html}, options.data)
    comparison = compare_tokenizers(
        options.tokenizers,
        options.data,
        words=options.words,
        columns=columns_of(options.columns),
        format=options.format,
        on_invalid=options.on_invalid,
        txt_documents=options.txt_documents,
        max_bytes=num_bytes_of(options.max_bytes, "--max_bytes"),
    )
    print_comparison(console, comparison)
    if options.json:
        write_json(Path(options.json), to_json(comparison))
    if options.html:
        write_page(options.html, comparison)
    for path in filter(None, (options.json, options.html)):
        print_error_line(f"written: {path}")


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the figures, the words, and the Unicode blocks that change."""
    print_line_on(console, summary(comparison))
    for table in (overview(comparison), by_script(comparison), words(comparison)):
        if table.rows:
            _print_table(console, table)
    for line in change_lines(comparison):
        print_line_on(console, f"\n{line}", keep_lines=True)


def _print_table(console: Console, table: Table) -> None:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(table.header):
        grid.add_column(cell(name), justify="right" if number and not table.is_text else "left", overflow="fold")
    for row in table.rows[:_MOST_ROWS]:
        grid.add_row(*(cell(_text(each)) for each in row))
    console.print()
    print_line_on(console, table.title)
    console.print(grid)
    if len(table.rows) > _MOST_ROWS:
        print_line_on(console, f"... {len(table.rows) - _MOST_ROWS:,} more; --html and --json have all of them")
    for note in table.notes:
        print_line_on(console, note)


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def _parser() -> Arguments:
    parser = Arguments("tokenizer compare", __doc__, example="my-tokenizer gpt2 --data articles.jsonl")
    parser.add_argument(
        "tokenizers",
        nargs="+",
        metavar="TOKENIZER",
        help="folders, hub names or runs; the others are compared with the first. NAME=FOLDER names one",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="FILES",
        help="text to compare them on: txt, json, jsonl, csv, tsv or parquet files, folders, or hub names",
    )
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="words to show token by token")
    add_reading_options(parser)
    parser.add_argument(
        "--max_bytes", default="20MB", metavar="SIZE", help="compare on an even sample of this size; default: 20MB"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON")
    parser.add_argument("--html", metavar="FILE", help="write a page")
    return parser
