"""Prints examples as coloured tables; without colour, brackets mark supervised tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle, groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_modules.rendering.segments import SegmentKind
from lit_sft.reporting.token_view import MARKS_LEGEND, MaskView, Row, ShownExample

Shades = Mapping[SegmentKind, tuple[str, str]]
"""Two alternating shades per kind, to show token boundaries."""

SHADES: Shades = {
    SegmentKind.SYSTEM: ("#a65fd6", "#c45fb4"),
    SegmentKind.USER: ("#2c7fe0", "#3a97b8"),
    SegmentKind.TEMPLATE: ("#737373", "#8c8c8c"),
    SegmentKind.ANSWER: ("#3f8f3f", "#738a1c"),
    SegmentKind.FINAL_ANSWER: ("#d2541c", "#b87614"),
    SegmentKind.TEXT: ("#168f80", "#5580b0"),
    SegmentKind.CONTEXT_ANSWER: ("#b0567a", "#a0703c"),
    SegmentKind.THINKING: ("#8a7f1e", "#9c6f2e"),
    SegmentKind.TOOL_CALL: ("#1f8a9c", "#3f8f6f"),
    SegmentKind.TOOL_RESULT: ("#6a6fe0", "#8a6ad0"),
    SegmentKind.FINAL_THINKING: ("#b8860b", "#9a8f2a"),
    SegmentKind.FINAL_TOOL_CALL: ("#d6408a", "#c05a6a"),
}
"""Legible on black and on white."""

SHADES_OF_16: Shades = {
    SegmentKind.SYSTEM: ("magenta", "bright_magenta"),
    SegmentKind.USER: ("blue", "bright_blue"),
    SegmentKind.TEMPLATE: ("bright_black", "white"),
    SegmentKind.ANSWER: ("green", "bright_green"),
    SegmentKind.FINAL_ANSWER: ("red", "bright_red"),
    SegmentKind.TEXT: ("cyan", "bright_cyan"),
    SegmentKind.CONTEXT_ANSWER: ("yellow", "bright_yellow"),
    SegmentKind.THINKING: ("bright_yellow", "yellow"),
    SegmentKind.TOOL_CALL: ("bright_green", "green"),
    SegmentKind.TOOL_RESULT: ("bright_blue", "blue"),
    SegmentKind.FINAL_THINKING: ("bright_magenta", "magenta"),
    SegmentKind.FINAL_TOOL_CALL: ("bright_red", "red"),
}
"""For terminals with 16 colours, where the nearest to several of the others is the same. Black and white could be
invisible, so two kinds may have the same two colours; the first of the two, which the legend shows, differs."""

_MASK_COLUMN = 40
"""Terminal columns per mask; if the masks do not fit side by side, they are shown one below the other."""


@dataclass(frozen=True, slots=True)
class _Look:
    """How tokens are shown on a terminal.

    Attributes:
        shades: Colours by kind.
        supervised: Style of a token of weight 1.
        has_brackets: Whether brackets mark supervised tokens: the terminal has neither colour nor underlining.
    """

    shades: Shades
    supervised: str
    has_brackets: bool = False

    def emphasis(self, weight: float) -> str:
        """Underlined if supervised; also bold if the weight is 1 and bold does not change the colour."""
        if weight >= 1:
            return self.supervised
        return "underline" if weight > 0 else ""


def print_examples(console: Console, summary: str, shown: list[ShownExample]) -> None:
    """Print examples as tables: one row per segment, one column per mask if the terminal is wide enough."""
    look = _look_on(console)
    kinds = sorted({row.kind for example in shown for row in example.rows})
    console.print(Text(summary), soft_wrap=True)  # names files, which a break would make hard to copy and find
    console.print(_legend(kinds, look))
    gutter = max(len(kind.name) for kind in kinds)
    for example in shown:
        console.print()
        console.rule(style="dim")
        console.print(_heading(example), soft_wrap=True)  # not as the rule's title, which would cut it off
        fits = console.width >= gutter + len(example.views) * (_MASK_COLUMN + 2)
        for views in [example.views] if fits else [[view] for view in example.views]:
            console.print()
            console.print(_table(example.rows, views, gutter, look))


def _look_on(console: Console) -> _Look:
    if console.color_system in ("standard", "windows"):
        return _Look(SHADES_OF_16, "underline")  # many of these terminals show bold in the bright colour
    return _Look(SHADES, "underline bold", has_brackets=console.color_system is None)


def _heading(example: ShownExample) -> Text:
    shortened = (f", {example.shortened}", "bold") if example.shortened else ""
    return Text.assemble((example.origin, "bold"), f"  {example.num_tokens:,} tokens", shortened, overflow="fold")


def _legend(kinds: list[SegmentKind], look: _Look) -> Text:
    if look.has_brackets:
        return Text(f"⟦supervised⟧ not supervised\n{MARKS_LEGEND}")
    names = Text(" ").join(Text(kind.name, look.shades[kind][0]) for kind in kinds)
    supervised = ("supervised", look.supervised)
    return Text.assemble(names, " · ", supervised, f" not supervised · shades alternate by token\n{MARKS_LEGEND}")


def _table(rows: list[Row], views: list[MaskView], gutter: int, look: _Look) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style="none")
    table.add_column("", width=gutter)
    for view in views:
        header = Text.assemble((view.name, "bold"), f"\n{view.caption}", overflow="fold")
        table.add_column(header, ratio=1, overflow="fold")
    for row in rows:
        label = Text(row.kind.name, style=look.shades[row.kind][0])
        table.add_row(label, *(_row_text(row, view, look) for view in views))
    return table


def _row_text(row: Row, view: MaskView, look: _Look) -> Text:
    text = Text(overflow="fold")
    shades = cycle(look.shades[row.kind])
    for supervised, pieces in groupby(row.pieces, key=view.supervises):
        text.append("⟦" if supervised and look.has_brackets else "")
        for piece in pieces:
            text.append(piece.text, f"{next(shades)} {look.emphasis(view.weights[piece.index])}")
        text.append("⟧" if supervised and look.has_brackets else "")
    return text
