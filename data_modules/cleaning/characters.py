"""Rules about single characters: Unicode NFC, control characters, line ends, white space, full-width Latin."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from data_modules.cleaning.code import outside_code
from data_modules.cleaning.edits import Edit, substitutions

_WIDE = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
SPACES = f" \t{_WIDE}"
"""White space within a line, for a character class."""

# no character of the class composes with the one before it, so NFC never joins two pieces
_APART = "\0-\x7f\u3000-\u3029\u3400-\u9fff\uff00-\uff60"
_NFC_PIECE = re.compile(f"[{_APART}]?[^{_APART}]*")

_CONTROL = re.compile(
    "[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff]+"
)
# Persian, the scripts of India and emoji need joiners between two of their own characters
_JOINED = "\u0590-\u109f\u1780-\u18af\u2190-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\U0001f000-\U0001faff"
_JOINER = re.compile(f"(?<![{_JOINED}])[\u200c\u200d]+|[\u200c\u200d]+(?![{_JOINED}\u200c\u200d])")

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")

# a run of white space, but not a single space
_GAP = re.compile(f"[{SPACES}\n](?:[{SPACES}\n]++|(?<! ))")
_INDENTATION = re.compile("[ \t]*")

_LATIN = re.compile(
    "[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+|(?<=[0-9\uff10-\uff19])(?:\uff0e(?=[0-9\uff10-\uff19])|\uff05)"
)
_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}


@dataclass(frozen=True)
class Nfc:
    """Unicode normalisation form C: one code point for a letter with its accent."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        if unicodedata.is_normalized("NFC", text):
            return []
        return substitutions(text, _NFC_PIECE, lambda piece: unicodedata.normalize("NFC", piece[0]))


@dataclass(frozen=True)
class ControlCharacters:
    """Removes control characters, zero-width characters, byte order marks, soft hyphens, direction marks and lone
    surrogates. Line ends and tabs stay, and so do joiners inside emoji and in scripts that need them."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        found = substitutions(text, _CONTROL, "")
        # joiners come last, because another character may stand between a joiner and what it joins
        return found or substitutions(text, _JOINER, "")


@dataclass(frozen=True)
class LineEnds:
    """Every line end becomes a newline: CR LF, CR, vertical tab, form feed, NEL, U+2028 and U+2029."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        return substitutions(text, _LINE_END, "\n")


@dataclass(frozen=True)
class WhiteSpace:
    """One space between words, at most one blank line in a row, no white space at the ends of lines or of the text.
    Indentation by spaces and tabs stays, that by ideographic and other wide spaces is removed. Code in Markdown
    stays."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        return outside_code(text, substitutions(text, _GAP, _narrowed), only_marked=True)


@dataclass(frozen=True)
class LatinWidth:
    """Full-width Latin letters and digits become ASCII, and so do a full-width point between digits and a full-width
    percent sign after one."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        return substitutions(text, _LATIN, lambda found: found[0].translate(_TO_ASCII))


def _narrowed(gap: re.Match[str]) -> str:
    """What a run of white space is replaced by."""
    if gap.end() == len(gap.string):
        return ""
    *lines, indentation = gap[0].split("\n")
    kept = indentation if _INDENTATION.fullmatch(indentation) else ""
    if gap.start() == 0:
        return kept
    return "\n" * min(2, len(lines)) + kept if lines else " "
