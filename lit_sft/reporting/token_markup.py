"""Classes and titles of tokens on a page, for the template tokens.html."""

from __future__ import annotations

from typing import Any

from data_modules.rendering.segments import SegmentKind
from lit_sft.reporting.templates import keep_lines
from lit_sft.reporting.token_view import MaskView, Piece, Row


def token_markup() -> dict[str, Any]:
    """The functions that tokens.html calls, by name."""
    return {"css": _css, "classes": _classes, "title": _title, "keep_lines": keep_lines}


def _classes(piece: Piece, view: MaskView) -> str:
    weight = float(view.weights[piece.index])
    return "t" + " on" * (weight > 0) + " part" * (0 < weight < 1)


def _title(row: Row, piece: Piece, view: MaskView) -> str:
    weight = float(view.weights[piece.index])
    state = "supervised" if weight >= 1 else f"supervised, weight {weight:g}" if weight else "not supervised"
    return f"id {'+'.join(map(str, piece.ids))}, {row.kind.name}, turn {row.turn}, {state}"


def _css(kind: SegmentKind) -> str:
    return f"kind-{kind.name.lower().replace('_', '-')}"
