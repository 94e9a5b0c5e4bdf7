"""Lines and table cells on terminals with and without typographic signs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lit_sft.console import cell, print_line_on
from lit_sft.reporting.page import Report, Table, print_summary

LINE = "“b” is better: 3.0 ±0.1 · more…"


def terminal(encoding: str) -> tuple[Console, io.TextIOWrapper]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", write_through=True)
    return Console(file=stream, width=200), stream


def printed(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode(stream.encoding)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", LINE),
        ("ascii", '"b" is better: 3.0 +/-0.1 - more...'),
        ("latin-1", '"b" is better: 3.0 +/-0.1 - more...'),
    ],
)
def test_typographic_signs_are_replaced_where_the_terminal_lacks_them(encoding: str, shown: str) -> None:
    console, stream = terminal(encoding)
    print_line_on(console, LINE)
    assert printed(stream) == f"{shown}\n"
    assert cell(LINE, console).plain == shown


def test_a_summary_has_no_codes_of_signs_on_an_ascii_terminal() -> None:
    console, stream = terminal("ascii")
    headline = Table("t", ["", "“b”"], [["ROUGE-L", "0.5 ±0.1"]])
    print_summary(console, Report("“a” against “b”", [LINE], [], [], [], headline), Path("report.html"))
    assert "\\u" not in printed(stream)
    assert "\\x" not in printed(stream)
    assert '"a" against "b"' in printed(stream)
