"""Prepares an example for preview: its tokens as readable text, and their weights under each loss mask."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from data_modules.encoding.example import Example
from data_modules.encoding.tokenizers import bytes_of_tokens, is_beginning
from data_modules.rendering.masking import MASKS, LossMask, Weights
from data_modules.rendering.segments import SegmentKind

MARKS_LEGEND = "↵ line break, · space, ⇥ tab, ␛ control, ⟨E4⟩ part of a character"


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens shown as one: usually a single token, or several that together form one character.

    Attributes:
        ids: The tokens.
        index: Position of the first token in the example.
        text: Their text, with invisible characters made visible.
    """

    ids: tuple[int, ...]
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """Consecutive pieces of one kind and turn."""

    kind: SegmentKind
    turn: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class MaskView:
    """An example under one mask.

    Attributes:
        name: Name of the mask.
        weights: Weight of each token in the loss, (T,).
    """

    name: str
    weights: Weights

    def supervises(self, piece: Piece) -> bool:
        """Whether a piece is supervised; all its tokens have the same weight."""
        return bool(self.weights[piece.index] > 0)

    @property
    def caption(self) -> str:
        """How much is supervised."""
        count, total = int((self.weights > 0).sum()), len(self.weights)
        partial = "" if set(self.weights.tolist()) <= {0.0, 1.0} else f", their weights sum to {self.weights.sum():.1f}"
        return f"{count:,} of {total:,} tokens supervised ({count / total:.1%}){partial}"


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An example, ready to display.

    Attributes:
        origin: Where the record is.
        num_tokens: Its length.
        rows: Its tokens.
        views: The same under each mask.
        shortened: How it was shortened, such as `truncated from 900 tokens`; empty if it was not.
    """

    origin: str
    num_tokens: int
    rows: list[Row]
    views: list[MaskView]
    shortened: str = ""


def to_json(example: Example, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """An example as plain JSON values, with flags for every named mask.

    Joining `tokens` gives the text: a character made of several tokens is listed at the last of them.
    """
    tokens = [""] * len(example)
    for group, data in _characters(example, tokenizer):
        tokens[group[-1]] = b"".join(data).decode("utf-8", "replace")
    return {
        "origin": example.origin,
        "input_ids": example.input_ids.tolist(),
        "tokens": tokens,
        "kinds": [SegmentKind(int(kind)).name for kind in example.kinds],
        "turns": example.turns.tolist(),
        "supervised": {name: (example.loss_weights(mask) > 0).tolist() for name, mask in MASKS.items()},
    }


def show_example(
    example: Example, tokenizer: PreTrainedTokenizerBase, masks: list[LossMask], shortened: str = ""
) -> ShownExample:
    """Split an example into rows of visible pieces.

    Args:
        example: Any example.
        tokenizer: The tokenizer that encoded it.
        masks: Masks to show side by side.
        shortened: How it was shortened, if it was.
    """
    ids = example.input_ids.tolist()
    pieces = [piece for group, data in _characters(example, tokenizer) for piece in _pieces(ids, group, data)]
    rows = []
    for (kind, turn), row in groupby(pieces, key=lambda p: (example.kinds[p.index], example.turns[p.index])):
        rows.append(Row(SegmentKind(int(kind)), int(turn), _with_visible_edges(tuple(row))))
    views = [MaskView(mask.name, example.loss_weights(mask)) for mask in masks]
    return ShownExample(visible(example.origin), len(example), rows, views, shortened)


def visible(text: str) -> str:
    """Make invisible and control characters visible.

    Line breaks are marked and kept. Single spaces within a text stay; all others become dots. Lone surrogates stand for
    bytes (PEP 383).
    """
    if not text.strip(_JOINERS):
        return "".join(map(_code, text))
    dotted = re.sub(r" {2,}| $| (?=\n)", lambda spaces: "·" * len(spaces[0]), text)
    return "".join(map(_visible_character, dotted))


def _characters(example: Example, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[range, list[bytes]]]:
    """Group tokens that hold parts of one character, within a segment; yields their bytes."""
    bytes_of = bytes_of_tokens(tokenizer)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    data: list[bytes] = []
    for index, token in enumerate(example.input_ids.tolist()):
        following = bytes_of(token)
        if data and not is_beginning(decoder.getstate()[0] + following[:1]):  # the character never becomes whole
            yield range(index - len(data), index), data
            data = []
            decoder.reset()
        data.append(following)
        decoder.decode(following)
        if not decoder.getstate()[0] or _ends_segment(example, index):
            yield range(index + 1 - len(data), index + 1), data
            data = []
            decoder.reset()


def _ends_segment(example: Example, index: int) -> bool:
    here = slice(index, index + 2)
    return index + 1 == len(example) or len({*zip(example.kinds[here], example.turns[here], strict=True)}) > 1


def _pieces(ids: list[int], group: range, data: list[bytes]) -> Iterator[Piece]:
    # the first token is never supervised but the next may be, so they cannot share a piece
    parts = [group] if group.start else [range(index, index + 1) for index in group]
    for part in parts:
        written = b"".join(data[part.start - group.start : part.stop - group.start])
        text = visible(written.decode("utf-8", "surrogateescape"))
        yield Piece(tuple(ids[part.start : part.stop]), part.start, text or "∅")


def _with_visible_edges(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Mark a space at the start of a row, and drop a line break at its end, which would leave an empty line."""
    first = pieces[0]
    pieces = (replace(first, text=re.sub("^ ", "·", first.text)), *pieces[1:])
    last = pieces[-1]
    return (*pieces[:-1], replace(last, text=last.text.removesuffix("\n")))


_MARKS = {chr(code): chr(0x2400 + code) for code in range(32)} | {
    "\n": "↵\n",
    "\t": "⇥",
    "\x7f": "␡",
    "\xa0": "⍽",
}
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Some scripts and emoji need these. They stay as they are, unless a token consists of nothing else."""


def _visible_character(character: str) -> str:
    if character in _MARKS:
        return _MARKS[character]
    if "\udc80" <= character <= "\udcff":
        return f"⟨{ord(character) - 0xDC00:02X}⟩"
    # control and format characters (C1 escapes, text direction), separators
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs")
    return _code(character) if hidden and character not in f" \u3000{_JOINERS}" else character


def _code(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"
