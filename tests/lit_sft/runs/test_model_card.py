"""Model cards: what they say about a run, front matter that the hub's library reads, nothing from records."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

from tests.conftest import MODELS, alpaca_rows
from tests.lit_sft.cli.conftest import run

Write = Callable[..., str]

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def settings(tmp_path: Path, tokenizer_folder: str, write: Write) -> dict[str, Any]:
    rows = [row | {"instruction": f"SECRET {row['instruction']}"} for row in alpaca_rows(24)]
    return {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}, "optimizer": {"lr": 1e-3}},
        "data": {
            "train": write("rows|<b>*.jsonl", rows), "val_fraction": 0.2, "test_fraction": 0.2, "template": "plain",
            "mask": "whole_sequence",
        },
        "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "run": {"root": str(tmp_path / "runs"), "name": "a b"},
    }  # fmt: skip


def fit(settings: dict[str, Any], write: Write) -> Path:
    run("fit", "--config", write("c.yaml", yaml.safe_dump(settings)))
    return Path(settings["run"]["root"]) / "a b" / "version_0"


def test_card_names_files_digests_counts_settings_and_metrics(settings: dict[str, Any], write: Write) -> None:
    folder = fit(settings, write)
    text = (folder / "model" / "README.md").read_text()
    card = ModelCard(text)
    ledger, metrics = (json.loads((folder / name).read_text()) for name in ("ledger.json", "fit.json"))
    digest = hashlib.sha256(Path(settings["data"]["train"]).read_bytes()).hexdigest()
    assert json.loads((folder / "sources.json").read_text()) == {
        "train": [{"name": "rows|<b>*.jsonl", "sha256": digest, "datasheet": False}]
    }
    assert f"| {digest[:16]} |" in text
    assert f"| val | {ledger['val']['records_read']:,} | {ledger['val']['examples']:,} |" in text
    assert "| mask | whole&#95;sequence |" in text
    assert "learning rate 0.001, cosine" in text
    assert "at most 2 steps; these weights are best.ckpt" in text
    assert "Who wrote the records is not recorded" in text
    assert card.data.library_name == "transformers"
    assert card.data.license is None
    assert "license:" in card.text  # what is left to the user
    results = {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}
    names = (
        "loss",
        *(f"{what}/{part}" for what in ("perplexity", "bits_per_byte") for part in ("answer", "whole_sequence")),
    )
    assert results == {("validation", name): metrics["best"][name] for name in names}
    assert f"| user | {metrics['before']['perplexity/user']:,.4g} | {metrics['best']['perplexity/user']:,.4g} |" in text
    assert card.data.model_name == "a b"


def test_card_has_no_text_of_records_no_paths_and_no_markup_from_names(
    settings: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    text = (fit(settings, write) / "model" / "README.md").read_text()
    assert "SECRET" not in text
    assert str(tmp_path) not in text
    assert "<b>" not in text
    assert "rows&#124;&#60;b&#62;&#42;" in text
    table = [line for line in text.splitlines() if "rows" in line]
    assert [line.count("|") for line in table] == [4]


def test_card_written_after_a_test_has_its_metrics_too(settings: dict[str, Any], write: Write) -> None:
    folder = fit(settings, write)
    run("test", str(folder))
    run("export", str(folder))
    tested = json.loads((folder / "result.json").read_text())["metrics"]
    results = ModelCard.load(folder / "model" / "README.md").data.eval_results
    assert results is not None
    found = {r.metric_name: r.metric_value for r in results if r.dataset_name == "test"}
    assert found["loss"] == tested["test/loss"]
    assert found["perplexity/whole_sequence"] == tested["test/perplexity/whole_sequence"]
    run("export", str(folder / "checkpoints" / "last.ckpt"), "--output", str(folder / "last"))
    ModelCard.load(folder / "last" / "README.md")


def test_card_of_adapters_replaces_the_blank_form_of_peft(
    settings: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    base = fit(settings, write) / "model"
    settings["model"]["backbone"] = {"pretrained": str(base), "tuning": "lora", "lora": {"rank": 2}}
    settings["run"]["root"] = str(tmp_path / "second")
    folder = fit(settings, write)
    card = ModelCard.load(folder / "model" / "README.md")
    assert card.data.library_name == "peft"
    assert "[More Information Needed]" not in card.text
    assert "LoRA adapters for model; " in card.text
    assert "base_model" not in card.data.to_dict()  # a folder of this machine
    AutoPeftModelForCausalLM.from_pretrained(folder / "model")
    run("export", str(folder), "--merge")
    assert ModelCard.load(folder / "merged" / "README.md").data.library_name == "transformers"
    AutoModelForCausalLM.from_pretrained(folder / "merged")


def test_card_says_what_differs_from_plain_training(settings: dict[str, Any], write: Write, tmp_path: Path) -> None:
    settings["model"]["backbone"]["config"] = MODELS["llama"]  # layers of GPT-2 cannot be quantised
    base = fit(settings, write) / "model"
    lora = {"pretrained": str(base), "tuning": "lora", "lora": {"rank": 2, "rslora": True}}
    settings["model"]["backbone"], settings["run"]["root"] = lora, str(tmp_path / "second")
    adapter = fit(settings, write) / "model"
    settings["model"]["backbone"] = {
        "pretrained": str(base), "tuning": "lora", "quantization": "int8", "adapter": str(adapter)
    }  # fmt: skip
    settings["model"]["objective"] = {"label_smoothing": 0.1, "neftune_alpha": 5}
    settings["data"]["prompt_weight"] = 0.25
    settings["run"]["root"] = str(tmp_path / "third")
    text = (fit(settings, write) / "model" / "README.md").read_text()
    assert "LoRA adapters of rank 2 on int8 weights trained" in text
    assert "this loads the base without quantisation" in text
    assert "| quantisation | int8 |" in text
    assert re.search(r"\| adapters \| rank 2, alpha 16, .*rslora", text)
    assert "| objective | next token, label smoothing 0.1, neftune alpha 5 |" in text
    assert re.search(r"\| mask \| .*0.25 \|", text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("dpo", "dpo, beta 0.2"), ("apo_zero", "apo zero, beta 0.2, desirable weight 1, undesirable weight 1")],
)
def test_card_of_preference_pairs(
    settings: dict[str, Any], write: Write, tmp_path: Path, name: str, shown: str
) -> None:
    settings["model"]["backbone"] = {"pretrained": str(fit(settings, write) / "model")}
    settings["run"]["root"] = str(tmp_path / "second")
    rows = [{"prompt": f"Count {n}", "chosen": f"{n}", "rejected": "No" * (n + 1)} for n in range(24)]
    settings["data"] |= {"train": write("pairs.jsonl", rows), "mask": "output_only"}
    settings["model"]["objective"] = {"name": name, "beta": 0.2}
    settings["checkpoint"] = {"monitor": "val/preference_loss"}
    card = ModelCard.load(fit(settings, write) / "model" / "README.md")
    assert card.data.tags == ["lit_sft", name]
    assert f"| objective | {shown} |" in card.text


def test_card_of_text_runs(settings: dict[str, Any], write: Write) -> None:
    texts = [{"text": f"Sheep {number} sleeps. " * (number % 5 + 2)} for number in range(30)]
    settings["data_module"] = "text"
    settings["data"] = {"train": write("texts.jsonl", texts), "block_size": 32, "val_fraction": 0.2}
    card = ModelCard.load(fit(settings, write) / "model" / "README.md")
    assert "| mask |" not in card.text
    assert card.data.tags == ["lit_sft"]
    assert card.data.eval_results
