"""Width of punctuation: full width in Chinese and Japanese text, half width in lines without either."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_modules.cleaning.code import outside_code
from data_modules.cleaning.edits import Edit, substitutions
from data_modules.cleaning.units import CJK

_WIDE = (
    "\u3001-\u3003\u3008-\u3011\u3014-\u301b\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\u2018\u2019\u201c\u201d\u2026"
)
_AFTER_CJK = f"[{CJK}{_WIDE}]"
_TO_FULL = str.maketrans(",!?;:.()", "，！？；：。（）")
_TO_HALF = str.maketrans("，！？；：。（）", ",!?;:.()")

# a full-width mark brings its own space; not part of a smiley, an ellipsis or a file name
_NARROW_MARK = re.compile(
    rf"(?<=[{CJK}{_WIDE}])"
    rf"(?:[,!?;](?![,;.])|:(?![()DPpO/\\:-])|\.(?=[ \t]*(?:[\n{_WIDE}]|\Z)|[ \t]*[{CJK}]))(?: +(?=[^\s]))?"
)
_NARROW_BRACKETS = re.compile(rf"(?:(?<=[{CJK}{_WIDE}])|^)\(([^()\n]+)\)", re.MULTILINE)
_HAS_CJK = re.compile(f"[{CJK}]")

_LINE = re.compile(r"[^\n]+")
_WIDE_MARK = re.compile("[，！？；：。（）]")


@dataclass(frozen=True)
class PunctuationWidth:
    """Comma, full stop, colon, semicolon, question and exclamation mark and round brackets: full width after Chinese
    and Japanese characters, half width in lines without any. Code, formulas, addresses and numbers stay."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        return outside_code(text, sorted([*_widened(text), *_narrowed(text)]))


def _widened(text: str) -> list[Edit]:
    """Half-width punctuation after CJK characters."""
    if not _HAS_CJK.search(text):
        return []
    edits = substitutions(text, _NARROW_MARK, lambda mark: mark[0].rstrip().translate(_TO_FULL))
    for pair in _NARROW_BRACKETS.finditer(text):
        follows_cjk = pair.start() > 0 and text[pair.start() - 1] != "\n"
        if follows_cjk or _HAS_CJK.match(pair[1]):
            edits += [(pair.start(), pair.start() + 1, "（"), (pair.end() - 1, pair.end(), "）")]
    return edits


def _narrowed(text: str) -> list[Edit]:
    """Full-width punctuation in lines without CJK characters."""
    edits: list[Edit] = []
    if not _WIDE_MARK.search(text):
        return edits
    for line in _LINE.finditer(text):
        if _HAS_CJK.search(line[0]) or not re.search("[A-Za-z]", line[0]):
            continue
        edits += [(mark.start(), mark.end(), _half(text, mark)) for mark in _WIDE_MARK.finditer(text, *line.span())]
    return edits


def _half(text: str, mark: re.Match[str]) -> str:
    """The half-width mark, with the space that a full-width one brings along."""
    narrow = mark[0].translate(_TO_HALF)
    before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
    if narrow == "(":
        return f"{' ' * before.isalnum()}{narrow}"
    return f"{narrow}{' ' * (after.isalpha() or (after.isdigit() and not before.isdigit()))}"
