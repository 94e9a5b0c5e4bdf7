"""The page of `make from-scratch`: every figure comes from the runs' files, and cleaning finds what was planted."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import article_facts
import build_articles
import from_scratch
import from_scratch_page
import pytest
import yaml

from data_modules.cleaning.cleaner import Cleaner
from lit_sft.files import read_json, write_json
from tests.documents import ROOT

RULES = yaml.safe_load((ROOT / "configs" / "pretrain" / "world.yaml").read_text(encoding="utf-8"))["data"]["cleaning"]
SMALL = {"english": 500, "chinese": 600}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small articles, and the ledger of cleaning them, as a run leaves them."""
    folder = tmp_path_factory.mktemp("from_scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_articles, "SIZES", SMALL)
        build_articles.build(folder / "articles")
    cleaner = Cleaner.from_settings(RULES)
    ledger, duplicates = cleaner.ledger(), cleaner.duplicates()
    for file in sorted((folder / "articles" / "train").glob("*.jsonl")):
        for number, text in enumerate(texts_of(file), start=1):
            ledger.add(duplicates.judge(cleaner.clean(text)), f"{file.name}:{number}")
    run = folder / "pretraining" / "version_0"
    run.mkdir(parents=True)
    write_json(run / "ledger.json", {"train": {"cleaning": ledger.as_dict()}})
    return folder


def texts_of(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def test_cleaning_finds_every_planted_fault_and_no_other(folder: Path) -> None:
    table = from_scratch_page.cleaning(folder)
    found = {str(row[0]).partition("(")[0].strip(): (row[1], row[2]) for row in table.rows}
    for rule in from_scratch_page.RULES.values():
        assert found[rule][0] == found[rule][1] != "0", rule
    ledger = (read_json(folder / "pretraining/version_0/ledger.json") or {})["train"]["cleaning"]
    assert f"{ledger['records_kept']:,} of {ledger['records_read']:,} articles kept" in table.notes[0]


def test_cleaning_gives_back_the_articles_as_they_were_before_the_faults(folder: Path) -> None:
    cleaner = Cleaner.from_settings(RULES)
    for language, size in SMALL.items():
        cleaned = Counter(
            cleaner.clean(text).text for text in texts_of(folder / "articles/train" / f"{language}.jsonl")
        )
        seeded = random.Random(f"{language} 0")
        articles = build_articles.clean_articles(language, size + 2 * build_articles.HELD_OUT, seeded)
        missing = [text for _, text in articles[2 * build_articles.HELD_OUT :] if not cleaned[text]]
        assert missing == []


def test_cleaning_leaves_held_out_articles_as_they_are(folder: Path) -> None:
    cleaner = Cleaner.from_settings(RULES)
    for file in [*(folder / "articles/val").glob("*.jsonl"), *(folder / "articles/test").glob("*.jsonl")]:
        for text in texts_of(file):
            assert cleaner.clean(text).text == text


def test_questions_are_found_by_the_line_of_their_record(folder: Path) -> None:
    records = json.loads((ROOT / "examples/world/test.json").read_text(encoding="utf-8"))
    lines = (ROOT / "examples/world/test.json").read_text(encoding="utf-8").splitlines()
    questions = json.loads((folder / "articles/questions.json").read_text(encoding="utf-8"))
    known = {(row["instruction"], row["input"]): row["standing"] for row in questions}
    for number, record in enumerate(records, start=2):
        assert record["instruction"] in lines[from_scratch_page.line_of(f"examples/world/test.json:{number}") - 1]
        assert known[record["instruction"], record["input"]] in {
            article_facts.STATED,
            article_facts.WITHHELD,
            article_facts.IN_PROMPT,
        }


def test_bits_per_byte_of_a_validation_are_its_nats_over_the_same_text() -> None:
    fit = {"last": {"nll/text": 2.0, "bits_per_byte/text": 0.9}}
    assert from_scratch_page.bits_of(fit, 4.0) == pytest.approx(1.8)


def test_finished_stages_are_skipped_and_a_failed_one_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(from_scratch, "FOLDER", tmp_path)
    record: dict[str, Any] = {}
    ran = tmp_path / "ran"
    from_scratch.run(from_scratch.Stage("one", lambda: [sys.executable, "-c", f"open({str(ran)!r}, 'w')"]), record)
    assert ran.exists()
    assert record["one"]["is_done"]
    with pytest.raises(SystemExit, match="two: failed with status 3; run the same command again"):
        from_scratch.run(from_scratch.Stage("two", lambda: [sys.executable, "-c", "raise SystemExit(3)"]), record)
    assert not (read_json(tmp_path / "stages.json") or {})["two"]["is_done"]
    assert "== one" in capsys.readouterr().out


def test_a_run_of_a_few_steps_and_a_real_one_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_scratch, "FOLDER", tmp_path / "runs")
    from_scratch.check_same_size(is_quick=True)
    from_scratch.check_same_size(is_quick=True)
    with pytest.raises(SystemExit, match="holds results of --quick; delete or rename the folder first"):
        from_scratch.check_same_size(is_quick=False)
    (tmp_path / "runs" / "quick").unlink()
    from_scratch.check_same_size(is_quick=False)
    with pytest.raises(SystemExit, match="holds results without --quick"):
        from_scratch.check_same_size(is_quick=True)


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "pretraining" / "version_0"
    monkeypatch.setattr(from_scratch, "RUN", run)
    (run / "checkpoints").mkdir(parents=True)
    assert "--config" in from_scratch.pretrain()
    assert not run.exists()
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    assert from_scratch.pretrain()[-2:] == ["--resume", str(run)]


@pytest.mark.slow
def test_a_quick_run_from_scratch_writes_its_page(tmp_path: Path) -> None:
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for _ in range(2):  # the second time, every stage is skipped
        subprocess.run([sys.executable, "examples/from_scratch.py", "--quick"], cwd=tmp_path, check=True)
    page = (tmp_path / "runs/from_scratch/report.md").read_text(encoding="utf-8")
    fit = read_json(tmp_path / "runs/from_scratch/pretraining/version_0/fit.json") or {}
    before, after = (fit[when]["bits_per_byte/text"] for when in ("before", "last"))
    assert f"from {before:.3f} to {after:.3f}" in page
