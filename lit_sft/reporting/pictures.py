"""What the pictures of all reports have in common."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from lit_sft.printable import printable

_DPI = 120


def plain_text(name: str) -> str:
    """A name as it is: matplotlib takes what stands between dollars for mathematics."""
    return printable(name).replace("$", r"\$")


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG file."""
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    return path
