"""Code, formulas, addresses and numbers inside a text, which rules about prose leave alone."""

from __future__ import annotations

import re
from bisect import bisect_right

from data_modules.cleaning.edits import Edit
from data_modules.cleaning.units import CJK

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n]*\n.*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_LATE_FENCE = re.compile(r"(?<=[^\s`])[ \t]*```[^\n`]*\n.*?```", re.DOTALL)
"""A fence that starts in the middle of a line, as in chats, is code only if it is closed."""
_MARKED = re.compile(r"``[^\n]+?``|`[^`\n]+`|\$\$[^$]+\$\$|\\\([^\n]+?\\\)|\\\[.+?\\\]", re.DOTALL)
_MARKS = ("`", "$$", "\\(", "\\[")
_ADDRESS = re.compile(r"(?:https?|ftp)://[!-~]+|\bwww\.[!-~]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII)
_ADDRESS_SIGNS = ("://", "www.", "@")
_CODE_LINE = re.compile(
    r"^(?=[^\n]{1,200}$)(?:(?: {4}|\t)[^\n]*"  # indented
    r"|[^\n]*(?:[!-:<-~];|[{}])[ \t]*(?://[^\n]*|/\*[^\n]*)?"  # ends like a statement
    r"|[ \t]*(?:#include|#define|#!|//|/\*|>>>|import [\w.]+|from [\w.]+ import|def \w|class \w+[(:]|return\b)[^\n]*"
    r"|[^\n]*(?:\b\w+ ?[-+*/]?= ?[\w\"'\[({]|\b[A-Za-z_][\w.]*\(|==|=>|->|&&|\|\|)[^\n]*"
    r")$",
    re.MULTILINE | re.ASCII,
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|//.*|/\*.*|#.*")
_HAS_CJK = re.compile(f"[{CJK}]")


def code_spans(text: str, *, only_marked: bool = False) -> list[tuple[int, int]]:
    """Where code is: fenced and inline code, formulas, addresses, and short lines that look like code.

    Args:
        text: Any text.
        only_marked: Whether only fenced and inline code and formulas count.

    Returns:
        Start and end of each span, in order, not overlapping.
    """
    spans: list[tuple[int, int]] = []
    if "```" in text or "~~~" in text:
        spans += [found.span() for fence in (_FENCE, _LATE_FENCE) for found in fence.finditer(text)]
    if any(mark in text for mark in _MARKS):
        spans += [found.span() for found in _MARKED.finditer(text)]
    if not only_marked:
        spans += [found.span() for found in _CODE_LINE.finditer(text) if _is_code(found[0])]
        if any(sign in text for sign in _ADDRESS_SIGNS):
            spans += [found.span() for found in _ADDRESS.finditer(text)]
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def outside_code(text: str, edits: list[Edit], *, only_marked: bool = False) -> list[Edit]:
    """The edits that touch no code.

    Args:
        text: The text before the edits.
        edits: Edits in order.
        only_marked: Whether only fenced and inline code and formulas count.
    """
    if not edits:
        return []
    spans = code_spans(text, only_marked=only_marked)
    starts = [start for start, _ in spans]
    return [edit for edit in edits if not _overlaps(edit, spans, starts)]


def _is_code(line: str) -> bool:
    return line.isascii() or not _HAS_CJK.search(_QUOTED.sub("", line))


def _overlaps(edit: Edit, spans: list[tuple[int, int]], starts: list[int]) -> bool:
    place = bisect_right(starts, max(edit[0], edit[1] - 1)) - 1
    return place >= 0 and spans[place][1] > edit[0]
