"""Draw docs/pictures/preview.svg: what `preview` prints for one bundled conversation. Run it with `make pictures`."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent.parent
WIDTH = 104
COMMAND = (
    "python -m lit_sft preview --config configs/quickstart.yaml --num 1 "
    "--data.train examples/world/conversations.jsonl --masks output_only firefly_multi_turn"
)


def draw() -> str:
    """Run the command in a true-colour terminal and return its output as an SVG picture."""
    terminal = {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    printed = subprocess.run(
        [sys.executable, *shlex.split(COMMAND)[1:]],
        cwd=ROOT,
        env={**os.environ, **terminal},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(printed.rstrip()))
    return console.export_svg(title="one conversation under two loss masks", unique_id="preview")


if __name__ == "__main__":
    (Path(__file__).parent / "preview.svg").write_text(draw(), encoding="utf-8")
