"""Width of punctuation: full width in Chinese and Japanese text, half width in lines without either."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_modules.cleaning.code import outside_code
from data_modules.cleaning.edits import Edit
from data_modules.cleaning.units import CJK

_WIDE = "\u3001-\u3003\u3008-\u3011\u3014-\u301b\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"
# English has curly quotes and ellipses too, so they count as Chinese only after Chinese
_AFTER_CJK = f"(?:(?<=[{CJK}{_WIDE}])|(?<=[{CJK}{_WIDE}][\u2019\u201d\u2026]))"
_TO_FULL = str.maketrans(",!?;:.()", "，！？；：。（）")
_TO_HALF = str.maketrans("，！？；：。（）", ",!?;:.()")

# with the spaces after it, which a full-width mark contains; not part of a smiley, an ellipsis or a file name
_NARROW_MARK = re.compile(
    rf"{_AFTER_CJK}"
    r"(?:[,!?;](?![,;.])|:(?![)/\\:-]|\((?![^()\n]+\))|[DPpO](?![A-Za-z]))"
    rf"|\.(?=[ \t]*(?:[{_WIDE}\u2019\u201d]|\Z)|[ \t]*[{CJK}]))(?: +(?=[^\s]))?"
)
# a full-width bracket contains the space next to it
_NARROW_BRACKETS = re.compile(
    rf"(?:{_AFTER_CJK}|^(?=\([{CJK}]))(\( *)(?:[^()\n ](?:[^()\n]*[^()\n ])?)( *\)(?: +(?=[^\s]))?)", re.MULTILINE
)
_HAS_CJK = re.compile(f"[{CJK}]")
# a Chinese title in an English sentence
_AFTER_TITLE = re.compile("[》〉」』】][,.!?;:] *[A-Za-z]")

_LINE = re.compile(r"[^\n]+")
_WIDE_MARK = re.compile("[，！？；：。（）]")


@dataclass(frozen=True)
class PunctuationWidth:
    """Comma, full stop, colon, semicolon, question and exclamation mark and round brackets: full width after Chinese
    and Japanese characters, half width in lines without any. Code, formulas, addresses and numbers stay."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        has_cjk, has_wide = _HAS_CJK.search(text), _WIDE_MARK.search(text)
        if not has_cjk and not has_wide:
            return []
        edits: list[Edit] = []
        for line in _LINE.finditer(text):
            if has_cjk and _HAS_CJK.search(line[0]):
                edits += sorted(_widened(text, *line.span()))
            elif has_wide:
                edits += _narrowed(text, *line.span())
        return outside_code(text, edits)


def _widened(text: str, start: int, stop: int) -> list[Edit]:
    """Half-width punctuation after CJK characters, in one line."""
    edits: list[Edit] = []
    for mark in _NARROW_MARK.finditer(text, start, stop):
        if _AFTER_TITLE.match(text, mark.start() - 1):
            continue
        edits.append((mark.start(), mark.end(), mark[0].rstrip().translate(_TO_FULL)))
    for pair in _NARROW_BRACKETS.finditer(text, start, stop):
        edits += [(*pair.span(1), "（"), (*pair.span(2), "）")]
    return edits


def _narrowed(text: str, start: int, stop: int) -> list[Edit]:
    """Full-width punctuation in a line without CJK characters. A line without letters stays: its script is unknown."""
    if not re.search("[A-Za-z]", text[start:stop]):
        return []
    marks = _WIDE_MARK.finditer(text, start, stop)
    return [(mark.start(), mark.end(), _half(text, mark)) for mark in marks]


def _half(text: str, mark: re.Match[str]) -> str:
    """The half-width mark, with the space that a full-width one contains."""
    narrow = mark[0].translate(_TO_HALF)
    before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
    if narrow == "(":
        return f"{' ' * before.isalnum()}{narrow}"
    return f"{narrow}{' ' * (after.isalpha() or (after.isdigit() and not before.isdigit()))}"
