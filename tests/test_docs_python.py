"""The Python examples in docs/ and in docstrings run on the bundled data without network access."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.documents import DOCUMENTS, ROOT, text_of

PAGE = "docs/python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
STUDY = "from lit_sft.ablation.run_study import run_study"
WITH_EXAMPLES = ("lit_sft.training.module", "lit_sft.settings.reading", "data_modules.sft_data_module")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout in which the examples may write files."""
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(blocks: list[str]) -> dict[str, Any]:
    """Run blocks one after the other, with the lines of the page in tracebacks."""
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        line = text_of(PAGE)[: text_of(PAGE).index(block)].count("\n")
        exec(compile("\n" * line + block, PAGE, "exec"), names)
    return names


def test_examples_of_the_page_run(checkout: Path) -> None:
    blocks = [block for block in BLOCK.findall(text_of(PAGE)) if STUDY not in block]
    names = run(blocks)
    assert names["trainer"].global_step == 20
    assert names["answer_nll"] > 0
    assert (checkout / "my-model" / "config.json").is_file()
    assert names["reply"]
    assert names["page"].is_file()
    assert names["my_data"].num_train_batches


def test_example_of_a_study_runs(checkout: Path) -> None:
    names = run([block for block in BLOCK.findall(text_of(PAGE)) if STUDY in block])
    assert names["report"] == Path("my-studies/learning_rate/report.html")
    assert (checkout / names["report"]).is_file()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_of_a_document_is_valid(name: str) -> None:
    for block in BLOCK.findall(text_of(name)):
        compile(block, name, "exec")


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_docstrings_run(module: str, checkout: Path) -> None:
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0
