"""The study of objectives in configs/, with a tiny pretrained model, one seed and three steps."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from lit_sft.__main__ import main
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from tests.conftest import MODELS, alpaca_rows

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_every_objective_trains_and_is_reported(
    write: Callable[..., str], tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "pretrained"
    causal_lm(build_backbone(BackboneSettings(config=MODELS["gpt2"]), tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    study: dict[str, Any] = yaml.safe_load(Path("configs/ablation/objectives.yaml").read_text(encoding="utf-8"))
    study["settings"] |= {
        "model.backbone.pretrained": str(folder),
        "model.generation.max_new_tokens": 4,
        "data.train": write("train.jsonl", alpaca_rows(24)),
        "data.val": write("val.jsonl", alpaca_rows(28)[24:]),
        "data.test": write("test.jsonl", alpaca_rows(36)[28:]),
        "data.batch_size": 4,
        "trainer.accelerator": "cpu",
    }
    study |= {"seeds": [0], "answers": 4, "validations": 1}
    study["budget"]["amount"] = 3
    path = write("objectives.yaml", "# small\n" + yaml.safe_dump(study))
    assert not main(["ablate", "--config", path, "--root", str(tmp_path / "runs"), "--jobs", "2"])
    found = tmp_path / "runs" / "objectives"
    trials = {p.parents[1].name: json.loads(p.read_text()) for p in found.glob("trials/*/version_0/trial.json")}
    assert len(trials) == len(study["arms"]) == 6
    assert {record["step"] for record in trials.values()} == {3}
    assert len({record["train_loss"] for record in trials.values()}) == 6  # each minimises something else
    assert len({tuple(record["order"]) for record in trials.values()}) == 1
    with (found / "report.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["arm"] for row in rows} >= set(study["arms"])
    assert "KL 0.1" in (found / "report.html").read_text(encoding="utf-8")
