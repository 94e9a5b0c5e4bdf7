"""The commands as a user types them, in this process: what they write, and what they say when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_sft.__main__ import COMMANDS, main
from lit_sft.models.backbone import build_backbone
from lit_sft.models.saving import load_weights
from lit_sft.settings.reading import read_settings
from tests.lit_sft.cli.conftest import Write, run


def test_fit_then_test_predict_validate_and_export_of_the_newest_run(
    path: str, root: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = root / "tiny" / "version_0"
    said = capsys.readouterr().out
    assert f"next    python -m lit_sft test {folder}\nor      python -m lit_sft chat {folder}\n" in said
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "tfevents" not in p.name}
    assert written >= {
        "config.yaml", "ledger.json", "fit.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "model/model.safetensors", "model/config.json", "model/tokenizer.json",
    }  # fmt: skip
    assert json.loads((folder / "fit.json").read_text())["steps"] == 2

    run("test", "--run.root", str(root))
    assert f"test: run {folder}, its config.yaml and best.ckpt" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text())
    assert result["metrics"]["test/nll/output_only"] == pytest.approx(result["metrics"]["test/loss"])
    assert result["answers"]["rows"] == result["ledger"]["test"]["examples"] > 0
    assert set(result["versions"]) >= {"torch", "lightning", "transformers", "peft"}
    assert len(result["config_hash"]) == len(result["data_fingerprint"]) == 16
    answers = [json.loads(line) for line in (folder / "test_answers.jsonl").read_text().splitlines()]
    assert len(answers) == result["answers"]["rows"]
    records = [json.loads(line) for line in (folder / "test_records.jsonl").read_text().splitlines()]
    assert len(records) == result["ledger"]["test"]["examples"]
    for name in ("output_only", "whole_sequence", "user", "end_token"):
        nats, tokens = (sum(row[what].get(name, 0) for row in records) for what in ("nats", "tokens"))
        assert tokens == result["metrics"][f"test/tokens/{name}"]
        assert nats / tokens == pytest.approx(result["metrics"][f"test/nll/{name}"], rel=1e-12)

    run("test", str(folder / "checkpoints" / "last.ckpt"))
    assert json.loads((folder / "result_last.json").read_text())["checkpoint"].endswith("last.ckpt")
    assert json.loads((folder / "result.json").read_text()) == result

    prompts = write("prompts.jsonl", [{"instruction": "Count to 3."}, {"instruction": "Say hi.", "output": "hi"}])
    run("predict", "--run.root", str(root), "--data.predict", prompts)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["origin"].rpartition("/")[2] for row in rows] == ["prompts.jsonl:1", "prompts.jsonl:2"]
    assert [row["reference"] for row in rows] == [None, "hi"]
    assert rows[0]["prompt"] == "<|im_start|>user\nCount to 3.<|im_end|>\n<|im_start|>assistant\n"

    before = (folder / "predictions.jsonl").read_text()
    assert main(["predict", str(folder), "--data.predict", write("bad.jsonl", [{"q": 1}])]) == 2
    assert (folder / "predictions.jsonl").read_text() == before

    run("validate", str(folder))
    out = root.parent / "exported"
    run("export", str(folder), "--output", str(out))
    assert AutoTokenizer.from_pretrained(out).chat_template
    ours, exported = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (folder / "model", out))
    assert all(torch.equal(ours[key], exported[key]) for key in ours)
    assert sorted(p.name for p in (root / "tiny").iterdir()) == ["version_0"]  # only fit makes run folders


def test_lora_run_keeps_and_exports_adapters_only(
    path: str, root: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    options = ["--model.backbone.tuning", "lora", "--model.backbone.lora.rank", "2", "--data.template", "plain"]
    run("fit", "--config", path, *options)
    folder = root / "tiny" / "version_0"
    # its random base weights are not on disk, so the export contains the whole model
    AutoModelForCausalLM.from_pretrained(folder / "model")
    base = ["--model.backbone.config", "null", "--model.backbone.pretrained", str(folder / "model")]
    run("fit", "--config", path, *options, *base, "--run.name", "second")
    assert (root / "second" / "version_0" / "model" / "adapter_model.safetensors").exists()
    assert main(["fit", "--config", path, *base[:3], str(root / "second" / "version_0" / "model")]) == 2
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all("lora_" in name for name in state)
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"]["backbone"]["lora"]["rank"] == 2
    run("export", str(folder), "--merge")
    AutoModelForCausalLM.from_pretrained(folder / "merged")


def test_a_second_fit_gets_a_folder_of_its_own(path: str, root: Path) -> None:
    run("fit", "--config", path)
    run("fit", "--config", path)
    assert sorted(p.name for p in (root / "tiny").iterdir()) == ["version_0", "version_1"]


def test_before_training_metrics_are_those_of_the_initial_weights(path: str, root: Path) -> None:
    run("fit", "--config", path, "--model.optimizer.lr", "1e-12")
    metrics = json.loads((root / "tiny" / "version_0" / "fit.json").read_text())
    assert (metrics["before"].pop("step"), metrics["last"].pop("step")) == (0, 2)
    assert metrics["before"] == pytest.approx(metrics["last"], rel=1e-6)


def test_exported_weights_are_those_of_the_best_metrics(path: str, root: Path) -> None:
    # the learning rate is so high that the last weights are worse than the best
    schedule = ["--model.optimizer.lr", "0.5", "--model.optimizer.schedule", "constant"]
    run("fit", "--config", path, *schedule, "--trainer.max_steps", "8", "--trainer.max_epochs", "4")
    folder = root / "tiny" / "version_0"
    metrics = json.loads((folder / "fit.json").read_text())
    assert metrics["best"]["loss"] <= metrics["last"]["loss"]
    settings = read_settings(folder / "config.yaml")
    backbone = build_backbone(settings.backbone(), settings.data_module().tokenizer)
    assert load_weights(backbone, folder / "checkpoints" / "best.ckpt") == metrics["best"]
    exported = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in backbone.state_dict().items())


def test_last_epoch_is_validated_whatever_the_interval(path: str, root: Path) -> None:
    options = ["--trainer.max_steps", "-1", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2"]
    run("fit", "--config", path, *options)
    metrics = json.loads((root / "tiny" / "version_0" / "fit.json").read_text())
    assert metrics["last"]["step"] == metrics["steps"] == 6


def test_last_given_length_also_applies_when_resuming(
    config: dict[str, Any], root: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    config["trainer"] |= {"max_epochs": 1, "max_steps": -1}  # two steps
    path, folder = write("epochs.yaml", yaml.safe_dump(config)), root / "tiny" / "version_0"
    run("fit", "--config", path, "--trainer.max_steps", "3")
    said = capsys.readouterr().out
    assert "plan    3 steps of 8 examples (8 x 1 accumulated x 1 device), 1.5 epochs of 2 steps; max_epochs of" in said
    assert (
        "the best checkpoint by val/loss (min) is kept; the newest checkpoint after each validation, every 10 mi"
        in said
    )
    saved = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]
    assert (saved["max_epochs"], saved["max_steps"]) == (-1, 3)
    run("fit", "--resume", str(folder), "--trainer.max_epochs", "2")
    assert "plan    4 steps of 8 examples" in (said := capsys.readouterr().out)
    assert "2 epochs of 2 steps; 3 of them are done; max_steps of" in said
    assert json.loads((folder / "fit.json").read_text())["steps"] == 4


def test_run_without_a_validation_split_keeps_the_newest_weights(path: str, root: Path) -> None:
    run("fit", "--config", path, "--data.val_fraction", "0", "--data.test_fraction", "0")
    assert (root / "tiny" / "version_0" / "model" / "model.safetensors").exists()


def test_later_config_files_and_options_override(path: str, root: Path, write: Write) -> None:
    overlay = write("overlay.yaml", "data: {mask: whole_sequence, batch_size: 2}\n")
    run("fit", "--config", path, "--config", overlay, "--data.batch_size", "3")
    saved = yaml.safe_load((root / "tiny" / "version_0" / "config.yaml").read_text())["data"]
    assert (saved["mask"], saved["batch_size"], saved["template"]) == ("whole_sequence", 3, "chatml")


def test_help_lists_the_commands_without_importing_lightning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main(["fit", "--help"]) == 0
    assert "--data.mask {whole_sequence,output_only,firefly_multi_turn}" in capsys.readouterr().out
