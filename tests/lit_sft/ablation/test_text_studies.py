"""Studies of text runs: bits per byte, paired by document, between tokenizers too; never loss per token there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_sft.ablation.collect import Collected
from lit_sft.ablation.comparison import Comparison, Findings
from lit_sft.ablation.run_files import TrialResult, read_trial
from lit_sft.ablation.study import Study
from lit_sft.ablation.study_report import make_report

BYTES = [10, 30]
BLOCKS = {"blocks": 1200, "documents_cut": 2, "sentences_cut": 1, "tokens": 99, "kept": 90, "cropped": 9, "padding": 5}


def text_run(
    folder: Path,
    arm: str,
    seed: int,
    *,
    nats: list[float],
    tokens: list[int],
    sizes: list[int],
    predicted: list[int] | None = None,
) -> TrialResult:
    """A tested text run on disk, read back: two documents of these nats, tokens and bytes."""
    run = folder / f"{arm}-{seed}"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed, "data_module": "text"}), encoding="utf-8")
    result = {
        "mask": "whole_sequence",
        "data_fingerprint": arm,
        "test_fingerprint": arm,
        "versions": {},
        "files": ["test_records.jsonl"],
        "ledger": {"train": {"records_read": 4, "blocks": BLOCKS}},
    }
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    rows = [
        {"origin": f"document {n}", "nats": {"text": nats[n], "whole_sequence": nats[n]}}
        | {"tokens": {"text": tokens[n], "whole_sequence": tokens[n]}}
        | {"document_bytes": sizes[n], "predicted_bytes": (predicted or sizes)[n]}
        for n in range(2)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "test_records.jsonl").write_text(lines, encoding="utf-8")
    found = read_trial(run / "result.json", arm)
    assert found is not None
    return found


def compared(folder: Path, **changes: Any) -> Comparison:
    """A tokenizer with many entries against one with few, which needs more tokens for the same bytes."""
    settings = {
        "large": {"model.backbone.tokenizer": "large"},
        "small": {"model.backbone.tokenizer": "small"},
    }
    small: dict[str, Any] = {"nats": [8.0, 40.0], "tokens": [4, 12], "sizes": BYTES, **changes}
    results = {}
    for seed in range(2):
        large = [6.0 + seed, 30.0]
        results["large", seed] = text_run(folder, "large", seed, nats=large, tokens=[2, 6], sizes=BYTES)
        results["small", seed] = text_run(folder, "small", seed, **small)
    return Comparison(["large", "small"], results, settings)


def test_bits_per_byte_are_the_bits_of_all_documents_over_their_bytes(tmp_path: Path) -> None:
    found, weight = compared(tmp_path).mean("bits_per_byte", "small")
    assert found.value == pytest.approx(48 / math.log(2) / 40)
    assert weight == 40


def test_tokenizers_are_compared_in_bits_per_byte_and_never_per_token(tmp_path: Path) -> None:
    findings = Findings(compared(tmp_path))
    (difference,) = findings.differences
    assert (difference.metric, difference.arm) == ("bits_per_byte", "small")
    assert difference.estimate.value == pytest.approx((48 - 36.5) / math.log(2) / 40)
    assert difference.sense == -1
    assert {(metric, arm) for metric, arm, _ in findings.refused} == {("text", "small"), ("whole_sequence", "small")}


def test_documents_with_other_bytes_are_refused(tmp_path: Path) -> None:
    findings = Findings(compared(tmp_path, sizes=[9, 30]))
    reasons = [why for metric, _, why in findings.refused if metric == "bits_per_byte"]
    assert len(reasons) == 1
    assert reasons[0] == "not comparable: scored on different texts (2 records, 39 bytes; 2 records, 40 bytes)"


def test_report_says_where_one_looks_that_an_arm_is_not_comparable(tmp_path: Path) -> None:
    two = compared(tmp_path)
    cut = {
        ("cut", seed): text_run(tmp_path, "cut", seed, nats=[8.0, 40.0], tokens=[4, 12], sizes=[9, 30])
        for seed in range(2)
    }
    comparison = Comparison([*two.arms, "cut"], two.results | cut, two.settings | {"cut": {"data.cleaning": ["nfc"]}})
    collected = Collected(comparison.arms, comparison.results, {}, comparison.settings, primary="bits_per_byte")
    report = make_report(comparison, collected, tmp_path)
    assert report.headline is not None
    assert [str(cell).endswith(" (not comparable)") for cell in report.headline.rows[0]] == [False, False, False, True]
    assert any("“cut” and “large”: not comparable: scored on different texts" in line for line in report.answers)


def test_a_document_that_is_one_token_for_one_tokenizer_is_left_out_for_all(tmp_path: Path) -> None:
    findings = Findings(compared(tmp_path, predicted=[0, 30], nats=[2.0, 40.0]))
    (difference,) = findings.differences
    assert difference.metric == "bits_per_byte"
    assert difference.estimate.value == pytest.approx((40 - 30) / math.log(2) / 30)
    assert difference.estimate.num_rows == 1


def test_report_shows_bits_per_byte_first_and_what_blocks_lose(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    collected = Collected(comparison.arms, comparison.results, {}, comparison.settings, primary="bits_per_byte")
    report = make_report(comparison, collected, tmp_path)
    assert report.headline is not None
    assert [row[0] for row in report.headline.rows] == ["bits per byte"]  # no loss per token
    assert "bits per byte" in report.answers[0]
    tables = {table.title: table for table in report.tables}
    assert tables["Training blocks"].rows[0] == ["large", "1,200", "2", "0", "1", "99", "90", "9", "5"]
    checks = {row[0]: row[1] for row in tables["Is the comparison fair? What all arms of a seed share"].rows}
    assert checks["test records"] == "by design"  # the same text, in other tokens


def test_a_study_may_ask_for_bits_per_byte() -> None:
    assert Study("blocks", ["x.yaml"], axes={"data.blocks": ["stream", "document"]}, primary="bits_per_byte")
