"""`tokenizer compare`: terminal, JSON and page, what can be named, and one message for each mistake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import normalizers

from lit_sft.__main__ import main
from lit_sft.tokenization.comparison import compare_tokenizers
from lit_sft.tokenization.unicode_blocks import Block
from tests.conftest import byte_tokenizer
from tests.documents import ROOT

Write = Callable[..., str]
BLOCKS = [Block("Basic Latin", 0, 128), Block("CJK Compatibility Ideographs", 0xF900, 0xFB00)]


@pytest.fixture(autouse=True)
def _two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_sft.tokenization.comparison.all_blocks", lambda: BLOCKS)


@pytest.fixture
def nfc(tmp_path: Path) -> str:
    """A tokenizer that normalizes."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    tokenizer.save_pretrained(tmp_path / "nfc")
    return str(tmp_path / "nfc")


@pytest.fixture
def data(write: Write) -> str:
    return write("texts.txt", "the lamp keeper of the harbour\n中文中文。\n")


def status(*arguments: str) -> int:
    return main(["tokenizer", "compare", *arguments])


def test_terminal_shows_figures_words_and_changed_blocks(
    tokenizer_folder: str, nfc: str, data: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert status(f"bytes={tokenizer_folder}", nfc, "--data", data, "--words", "博士", "[b]") == 0
    out = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines() if line}
    assert rows["entries"][1:] == ["259", "259"]
    assert rows["tokens"][1:] == ["45", "45"]
    assert rows["Latin"] == ["Latin", "66.67%", "1.00", "(1.00)", "1.00", "(1.00)"]
    assert rows["博士"][1:7] == ["229", "141", "154", "229", "163", "171"]
    assert "[b]" in rows
    assert "nfc changes CJK Compatibility Ideographs (460 of 512)" in out
    assert "bytes changes" not in out


def test_json_has_every_figure(tokenizer_folder: str, nfc: str, data: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert status(tokenizer_folder, nfc, "--data", data, "--words", "论文", "--json", str(file)) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    first, second = report["tokenizers"]
    assert first["tokens"] == 45
    assert first["bytes_per_token"] == 1
    assert first["characters_per_token"] == pytest.approx(35 / 45)
    assert first["single_bytes"] == 15
    assert first["scripts"]["Han"] == {"tokens": 15, "bytes_per_token": 1, "characters_per_token": 1 / 3}
    assert sum(script["bytes"] for script in report["data"]["scripts"].values()) == report["data"]["used_bytes"] == 45
    assert first["changed_blocks"] == []
    [changed] = second["changed_blocks"]
    assert (changed["block"], changed["characters"], changed["first"]) == (BLOCKS[1].name, 460, "\uf900")
    assert report["words"]["论文"]["nfc"]["ids"] == list("论文".encode())
    assert first["tokens_per_cpu_second"] > 0
    assert first["speed_ratio"] == 1


def test_page_shows_the_tokens_and_escapes_every_text(
    tokenizer_folder: str, nfc: str, write: Write, tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script> &amp; \x1b[31m" + "x" * 120
    file = tmp_path / "page.html"
    data = write("rows.jsonl", [{"text": hostile}])
    assert status(f"<b>={tokenizer_folder}", nfc, "--data", data, "--words", "<i>", "--html", str(file)) == 0
    page = file.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<i>" not in page
    assert "<b>=" not in page
    assert "\x1b" not in page
    assert 'title="id 60">&lt;</span>' in page
    assert "U+F900 to U+FAFF" in page
    assert "Longest entries of nfc" in page


def test_run_is_opened_by_its_settings(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = tmp_path / "version_0"
    run.mkdir()
    shutil.copy(ROOT / "configs" / "quickstart.yaml", run / "config.yaml")
    comparison = compare_tokenizers([str(run), "examples/tokenizer"], data)
    assert [tokenizer.num_entries for tokenizer in comparison.tokenizers] == [1024, 1024]
    assert comparison.measures.usages[0].counts.tolist() == comparison.measures.usages[1].counts.tolist()


def test_sample_of_the_text_is_compared(tokenizer_folder: str, write: Write) -> None:
    data = write("lines.txt", "\n".join(f"line {number}" for number in range(2000)))
    comparison = compare_tokenizers([tokenizer_folder], data, max_bytes=4000)
    assert 3900 < comparison.measures.bytes.sum() == comparison.corpus.used_bytes <= 4000


MISTAKES = {
    "same name": (("TOKENIZER", "TOKENIZER", "--data", "DATA"), "two tokenizers are called"),
    "no tokenizer": (("EMPTY", "--data", "DATA"), "no tokenizer could be loaded"),
    "no data": (("TOKENIZER", "--data", "nowhere.txt"), "nowhere.txt: no such file or folder"),
    "not given": (("TOKENIZER",), "--data: not given"),
    "page": (("TOKENIZER", "--data", "DATA", "--html", "DATA"), "is read by this command"),
    "report": (("TOKENIZER", "--data", "DATA", "--json", "DATA"), "is read by this command"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_message(
    mistake: str, tokenizer_folder: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = MISTAKES[mistake]
    (tmp_path / "empty").mkdir()
    names = {"TOKENIZER": tokenizer_folder, "DATA": data, "EMPTY": str(tmp_path / "empty")}
    assert status(*(names.get(argument, argument) for argument in arguments)) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert expected in message
    assert "Traceback" not in message
