"""The page of `preview --html`: one file without scripts or anything to be fetched. What data wrote is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path

from data_modules.errors import UserError
from data_modules.rendering.segments import SegmentKind
from lit_sft.preview.token_view import MARKS_LEGEND, MaskView, Piece, Row, ShownExample


def write_page(path: str, summary: str, shown: list[ShownExample]) -> None:
    """Write the page.

    Raises:
        UserError: If it cannot be written there, or would replace a file that is not a page.
    """
    try:
        if Path(path).is_file() and not Path(path).read_bytes().lstrip()[:2].startswith(b"<"):
            raise UserError(f"--html {path}: exists and is not a page; expected a new file, or an earlier preview.")
        Path(path).write_text(page(summary, shown), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--html {path}: cannot be written ({error.strerror}); expected a file in an existing folder that you may "
            "write to. Choose another place."
        ) from None


def page(summary: str, shown: list[ShownExample]) -> str:
    """The examples as one HTML document.

    Args:
        summary: Stands below the title.
        shown: The examples; all have the same masks.
    """
    kinds = sorted({row.kind for example in shown for row in example.rows})
    sections = "\n".join(_section(number, example) for number, example in enumerate(shown, start=1))
    return _PAGE.format(style=_STYLE, summary=escape(summary), legend=_legend(kinds), sections=sections)


def _legend(kinds: list[SegmentKind]) -> str:
    samples = " ".join(f'<span class="t {_css(kind)}">{kind.name}</span>' for kind in kinds)
    supervised = '<span class="t on">supervised</span> not supervised · a shade for each token'
    return f"{samples} · {supervised}<br>{MARKS_LEGEND}"


def _section(number: int, example: ShownExample) -> str:
    masks = "\n".join(_mask(example.rows, view) for view in example.views)
    return (
        f"<section>\n<h2>{number}. {escape(example.origin)} <small>{example.num_tokens:,} tokens</small></h2>\n"
        f'<div class="masks" style="--rows:{len(example.rows) + 1}">\n{masks}\n</div>\n</section>'
    )


def _mask(rows: list[Row], view: MaskView) -> str:
    body = "\n".join(_row(row, view) for row in rows)
    return f"<article>\n<h3>{escape(view.name)} <small>{view.caption}</small></h3>\n{body}\n</article>"


def _row(row: Row, view: MaskView) -> str:
    tokens = "".join(_token(row, piece, view) for piece in row.pieces)
    return f'<div class="row {_css(row.kind)}"><b>{row.kind.name}</b><p>{tokens}</p></div>'


def _token(row: Row, piece: Piece, view: MaskView) -> str:
    weight = float(view.weights[piece.index])
    state = "supervised" if weight >= 1 else f"supervised, weight {weight:g}" if weight else "not supervised"
    title = f"id {'+'.join(map(str, piece.ids))}, {row.kind.name}, turn {row.turn}, {state}"
    classes = "t" + " on" * (weight > 0) + " part" * (0 < weight < 1)
    # focusable by a tap, not by the tab key: a touch screen shows no titles
    return f'<span class="{classes}" tabindex="-1" title="{title}">{escape(piece.text)}</span>'


def _css(kind: SegmentKind) -> str:
    return kind.name.lower().replace("_", "-")


_LIGHT = {
    "ink": "#1b1b1f",
    "quiet": "#5c5c66",
    "paper": "#ffffff",
    "line": "#d9d9e0",
    "system": "#7a2fb0",
    "user": "#1559b3",
    "template": "#5f5f68",
    "answer": "#27702b",
    "final-answer": "#b03a06",
    "text": "#0d6b60",
}
_DARK = {
    "ink": "#ececf1",
    "quiet": "#a5a5b0",
    "paper": "#16161a",
    "line": "#37373f",
    "system": "#cf9bf2",
    "user": "#82b6ff",
    "template": "#a3a3ad",
    "answer": "#86cf89",
    "final-answer": "#ff9e6b",
    "text": "#62cfc1",
}


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def _kind_rules() -> str:
    names = (_css(kind) for kind in SegmentKind if kind is not SegmentKind.PADDING)
    return "\n".join(f".{name}{{--kind:var(--{name})}}" for name in names)


_STYLE = f"""
:root{{color-scheme:light dark;{_variables(_LIGHT)}}}
@media screen and (prefers-color-scheme:dark){{:root{{{_variables(_DARK)}}}}}
{_kind_rules()}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1rem;max-width:96rem;background:var(--paper);color:var(--ink);
 font:16px/1.5 system-ui,sans-serif}}
h1{{font-size:1.35rem;margin:0 0 .25rem}}
h2{{font-size:1.05rem;margin:0 0 .75rem;overflow-wrap:anywhere}}
h3{{font-size:.95rem;margin:0;padding-bottom:.35rem;border-bottom:2px solid var(--line)}}
small{{font-weight:400;font-size:.85rem;color:var(--quiet)}}
header p{{margin:.35rem 0;color:var(--quiet)}}
section{{margin-top:2rem;padding-top:1rem;border-top:1px solid var(--line)}}
.masks{{display:grid;gap:0 2rem}}
.row{{padding:.35rem 0;border-bottom:1px solid var(--line)}}
.row b{{display:block;font-size:.7rem;letter-spacing:.04em;color:var(--kind)}}
.row p{{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.75;
 font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.85rem}}
.t{{color:var(--kind);padding:.1em 0;border-radius:2px;
 background:color-mix(in srgb,var(--kind) 5%,transparent)}}
.row .t:nth-child(even){{background:color-mix(in srgb,var(--kind) 11%,transparent)}}
.t.on{{font-weight:700;background:color-mix(in srgb,var(--kind) 20%,transparent);
 text-decoration:underline 2px;text-underline-offset:.25em;text-decoration-skip-ink:none}}
.row .t.on:nth-child(even){{background:color-mix(in srgb,var(--kind) 32%,transparent)}}
.t.part{{font-weight:400;text-decoration-style:dotted}}
.row .t:hover,.row .t:focus{{outline:2px solid var(--kind);outline-offset:1px}}
.row .t:focus::after{{content:attr(title);position:fixed;left:1rem;bottom:1rem;padding:.3em .6em;border-radius:4px;
 background:var(--ink);color:var(--paper);font:400 .8rem/1.4 system-ui,sans-serif;text-decoration:none}}
@media (min-width:56rem){{
 .masks{{grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);grid-template-rows:repeat(var(--rows),auto)}}
 article{{display:grid;grid-row:span var(--rows);grid-template-rows:subgrid}}
 .row{{display:grid;grid-template-columns:7.5rem minmax(0,1fr)}}
 .row b{{padding-top:.4em}}
}}
@media (max-width:55.99rem){{article+article{{margin-top:1.5rem}}}}
@media print{{body{{max-width:none;padding:0;font-size:11pt}}h2,h3{{break-after:avoid}}}}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>lit_sft preview</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>What is trained on</h1>
<p>{summary}</p>
<p class="legend">{legend}</p>
</header>
{sections}
</body>
</html>
"""
