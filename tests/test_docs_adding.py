"""The diffs of docs/adding.md apply to the code as it is, and what they add works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, text_of

DIFFS = [match[2] for match in re.finditer(r"^(`{3,})diff\n(.*?)^\1$", text_of("docs/adding.md"), re.M | re.S)]

USES = """
from typing import get_args

from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.formats import recognise_format, to_conversation
from data_modules.records.record import Record
from data_modules.rendering.masking import MASKS, MaskName
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import resolve_template
from lit_sft.__main__ import main
from lit_sft.metrics.text import word_f1
from lit_sft.reporting.formatting import direction, title_of

assert [kind.name for kind in SegmentKind if MASKS["user_only"].supervises(kind)] == ["USER"]
assert "user_only" in get_args(MaskName)

record = Record({"query": "Who?", "reply": "Clover."}, "rows.jsonl:1")
assert recognise_format(record) == "query_reply"
conversation = to_conversation(record, "query_reply")
assert conversation.turns == (Message(Role.USER, "Who?"), Message(Role.ASSISTANT, "Clover."))

template = resolve_template("qa", load_tokenizer("examples/tokenizer"))
text = "".join(segment.text for segment in template.render(conversation))
assert text == f"Question: Who?\\nAnswer: Clover.{template.end}"

assert word_f1("A pony, a pony", "a pony") == 2 * 2 / (4 + 2)
assert word_f1("goose", "") == 0
assert (title_of("word_f1"), direction("word_f1")) == ("word F1", 1)

assert main(["count", "rows.txt", "--tokenizer", "examples/tokenizer"]) == 0
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code and the documents, to apply diffs to."""
    for name in ("data_modules", "lit_sft", "callbacks", "docs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "_build", "api"))
    return tmp_path


def apply(diff: str, folder: Path) -> None:
    done = subprocess.run(["git", "apply", "-C1", "-"], cwd=folder, input=diff, text=True, capture_output=True)
    assert done.returncode == 0, f"docs/adding.md is out of date: {done.stderr}"


def test_page_has_a_diff_for_each_addition() -> None:
    headings = re.findall(r"^## (.+)$", text_of("docs/adding.md"), flags=re.MULTILINE)
    assert len(headings) == len(DIFFS) == 5


def test_diffs_apply_and_what_they_add_works(copy: Path) -> None:
    for diff in DIFFS:
        apply(diff, copy)
    (copy / "rows.txt").write_text("Clover keeps a brown pony.", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USES],
        cwd=copy,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(copy)},
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ tokens, 26 bytes\n", done.stdout)
