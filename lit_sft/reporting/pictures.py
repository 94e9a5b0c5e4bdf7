"""Fonts and files of all pictures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from lit_sft.printable import printable

COLOURS = {1: "tab:green", -1: "tab:red", 0: "tab:gray"}
"""Colours of differences: better, worse, neither."""

_DPI = 120

_FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei"]


def plain_text(name: str) -> str:
    """Escape a name for matplotlib, which reads text between dollar signs as mathematics."""
    return printable(name).replace("$", r"\$")


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG file."""
    # names in scripts without an installed font are drawn as boxes; the page has them as text
    with rc_context({"font.family": _FONTS}), warnings.catch_warnings(), _no_font_messages():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.tight_layout()
        figure.savefig(path, dpi=_DPI)
    return path


@contextmanager
def _no_font_messages() -> Iterator[None]:
    """Silence messages about missing fonts: only one of the list is needed."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
