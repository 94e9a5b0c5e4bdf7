"""Tokens of a convention as segments, so that the ledger counts them like ours."""

from __future__ import annotations

from itertools import groupby

from data_modules.encoding.strings import EncodedSegment
from data_modules.rendering.convention_tokens import Part, Tokens
from data_modules.rendering.segments import Segment

_FIXED = frozenset(Part) - {Part.SYSTEM, Part.USER, Part.ANSWER, Part.THINKING, Part.TOOL_CALL, Part.TEXT}


def runs_of(tokens: Tokens) -> list[EncodedSegment]:
    """One segment for each run of tokens that begin in the same piece of text."""
    runs = []
    for piece, places in groupby(range(len(tokens)), key=lambda place: tokens.pieces[place][0]):
        segment = Segment(piece.text, piece.kind, piece.turn, control=piece.part in _FIXED)
        runs.append(EncodedSegment(segment, [tokens.ids[place] for place in places]))
    return runs
