"""`make synthesis`: 500 pairs from 100 articles, split by article, and a model trained on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import boats
import pytest
import stand_in_model
import synthesis

from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
from tests.documents import ROOT

pytest.importorskip("openai")


def test_stand_in_model_writes_five_pairs_of_every_article_and_all_are_accepted(tmp_path: Path) -> None:
    server = stand_in_model.started()
    model = ModelSettings(endpoint=f"http://127.0.0.1:{server.server_port}/v1", name="stand-in", key_variable=None)
    articles = str(synthesis.write_articles(tmp_path))
    try:
        summary = synthesize(SynthesisSettings(str(tmp_path / "pairs"), model, articles=articles))
    finally:
        server.shutdown()
        server.server_close()
    assert summary["subjects"] == {"read": 100, "accepted": 100, "refused": 0, "failed": 0, "not_reached": 0}
    assert summary["pairs"] == {"read": 500, "accepted": 500, "refused": 0}
    assert {"lengths", "references", "grounded", "duplicates"} <= {rule["name"] for rule in summary["rules"]}
    synthesis.check_splits(tmp_path / "pairs" / "pairs.jsonl")


def test_article_in_two_splits_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"instruction": f"Question {n}?", "output": "Yes.", "article_id": f"a{n % 3}"} for n in range(60)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    splits = (("train", "val")[n % 2] for n in range(60))
    read = list(zip(splits, conversations(path), strict=False))
    monkeypatch.setattr(synthesis, "read_splits", lambda sources: read)
    with pytest.raises(SystemExit, match="a0 is in val and in train"):
        synthesis.check_splits(path)


def conversations(path: Path) -> list[object]:
    from data_modules.records.counts import RecordCounts
    from data_modules.records.splits import Sources, read_conversations

    return list(read_conversations("train", Sources({"train": [str(path)]}), RecordCounts()))


def test_articles_are_the_same_every_time_and_none_is_like_another() -> None:
    first = boats.articles()
    assert boats.articles() == first
    assert boats.articles(seed=1) != first
    assert len({row["text"] for row in first}) == len({row["article_id"] for row in first}) == 100
    assert len(set("".join(boats.CHINESE_NAMES))) == 100


@pytest.mark.slow
def test_script_makes_pairs_and_trains_on_them(tmp_path: Path) -> None:
    command = [sys.executable, "examples/synthesis.py", "--folder", str(tmp_path), "--epochs", "12"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "500 conversations made: 500 accepted, 0 refused" in done.stdout
    assert "500 pairs of 100 articles, none of them in two splits" in done.stdout
    run = tmp_path / "runs" / "boats" / "version_0"
    ledger = json.loads((run / "ledger.json").read_text(encoding="utf-8"))
    assert sum(ledger[split]["records_read"] for split in ("train", "val", "test")) == 500
    assert not any("unknown_fields" in ledger[split] for split in ledger)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    print(done.stdout[done.stdout.index("test: run") :])
    assert result


def test_script_says_where_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["synthesis.py"])
    with pytest.raises(SystemExit, match="no configs/ here"):
        synthesis.main()
