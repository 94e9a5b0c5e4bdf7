"""The page of `preview --html`: one file, without scripts or external resources. Text from the data is escaped."""

from __future__ import annotations

from pathlib import Path

from data_modules.errors import UserError
from data_modules.rendering.segments import SegmentKind
from lit_sft.files import write_text
from lit_sft.preview.token_view import MARKS_LEGEND, MaskView, Piece, Row, ShownExample
from lit_sft.reporting.templates import keep_lines, render


def write_page(path: str, summary: str, shown: list[ShownExample]) -> None:
    """Write the page.

    Raises:
        UserError: If the file cannot be written, or exists and is not a page.
    """
    try:
        if Path(path).is_file() and not Path(path).read_bytes().lstrip()[:2].startswith(b"<"):
            raise UserError(f"--html {path}: exists and is not a page; expected a new file, or an earlier preview.")
        write_text(Path(path), page(summary, shown))
    except OSError as error:
        raise UserError(
            f"--html {path}: cannot be written ({error.strerror}); expected a file in an existing folder that you can "
            "write to. Choose another path."
        ) from None


def page(summary: str, shown: list[ShownExample]) -> str:
    """The examples as one HTML document.

    Args:
        summary: Lines below the title.
        shown: The examples, all with the same masks.
    """
    kinds = sorted({row.kind for example in shown for row in example.rows})
    return render(
        "preview.html",
        summary=summary,
        shown=shown,
        kinds=kinds,
        marks=MARKS_LEGEND,
        css=_css,
        classes=_classes,
        title=_title,
        keep_lines=keep_lines,
    )


def _classes(piece: Piece, view: MaskView) -> str:
    weight = float(view.weights[piece.index])
    return "t" + " on" * (weight > 0) + " part" * (0 < weight < 1)


def _title(row: Row, piece: Piece, view: MaskView) -> str:
    weight = float(view.weights[piece.index])
    state = "supervised" if weight >= 1 else f"supervised, weight {weight:g}" if weight else "not supervised"
    return f"id {'+'.join(map(str, piece.ids))}, {row.kind.name}, turn {row.turn}, {state}"


def _css(kind: SegmentKind) -> str:
    return f"kind-{kind.name.lower().replace('_', '-')}"
