"""The Markdown documents of the project, and what tests read from them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}

_FENCED = re.compile(r"^( *)(`{3,}).*\n((?:.*\n)*?)\1\2$", re.MULTILINE)


def text_of(name: str) -> str:
    """A document, such as `docs/data.md`."""
    return DOCUMENTS[name].read_text(encoding="utf-8")


def commands_of(name: str) -> list[str]:
    """The lines of a document's code blocks that start our commands, as a shell would read them."""
    lines = (line.strip() for line in _code(text_of(name)).replace("\\\n", " ").splitlines())
    lines = (re.sub(r"^lit-sft ", "python -m lit_sft ", line) for line in lines)
    return [line.partition(" #")[0].strip() for line in lines if line.startswith("python -m lit_sft")]


def _code(text: str) -> str:
    """Fenced and indented code blocks."""
    fenced = "".join(match[3] for match in _FENCED.finditer(text))
    indented = (line + "\n" for line in _FENCED.sub("", text).splitlines() if line.startswith("    "))
    return fenced + "".join(indented)
