"""A text run from its config to an exported model: fit, resume, test, the files they write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_modules.errors import UserError
from data_modules.text_data_module import TextDataModule
from lit_sft.ablation.run_files import read_trial
from lit_sft.evaluation.training_data import training_data_of
from lit_sft.runs.fitting import resume, train
from lit_sft.runs.folders import Run
from lit_sft.runs.opening import open_model
from lit_sft.runs.testing import score_run
from lit_sft.runs.text_report import print_text_ledger
from lit_sft.settings.reading import read_settings
from tests.conftest import MODELS, articles

pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")


@pytest.fixture
def config(write: Callable[..., str], tokenizer_folder: str, tmp_path: Path) -> str:
    values: dict[str, Any] = {
        "data_module": "text",
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}},
        "data": {
            "train": write("texts.jsonl", [{"text": text} for text in articles(60)]), "val_fraction": 0.2,
            "test_fraction": 0.2, "blocks": "sentence_end", "block_size": 48, "batch_size": 4,
        },
        "trainer": {
            "max_steps": 4, "accelerator": "cpu", "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "callbacks.SampleGeneration", "init_args": {"prompts": ["Once"], "max_new_tokens": 4,
                                                                           "num_held_out": 2}},
                {"class_path": "callbacks.PerplexityMonitor"},
                {"class_path": "callbacks.RunHealth"},
                {"class_path": "callbacks.TrialRecord"},
                {"class_path": "callbacks.BenchmarkMonitor", "init_args": {"suite": write(
                    "suite.yaml", "choices: {general: {rows: 3}}\n"
                )}},
            ],
        },
        "run": {"root": str(tmp_path / "runs")},
    }  # fmt: skip
    return write("text.yaml", yaml.safe_dump(values))


@pytest.fixture
def run(config: str) -> Run:
    return train(read_settings(config))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_text_run_is_trained_resumed_tested_and_exported(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = _json(run.folder / "ledger.json")["train"]["blocks"]
    assert blocks["tokens"] == blocks["kept"] + blocks["cropped"] > blocks["kept"]
    assert yaml.safe_load(run.config.read_text())["data_module"] == "text"
    _check_samples(run)
    benchmarks = [json.loads(line) for line in (run.folder / "benchmarks.jsonl").read_text().splitlines()]
    assert {row["step"] for row in benchmarks} == {0, 4}
    assert {row["items"] for row in benchmarks if row["figure"].startswith("accuracy/")} == {3}
    assert training_data_of(str(run.folder)).state == "unchanged"  # type: ignore[union-attr]
    resume(run.folder, {"trainer.max_steps": 6})
    assert _json(run.folder / "fit.json")["steps"] == 6
    result = score_run(run.folder)
    metrics = result["metrics"]
    assert metrics["test/loss"] == pytest.approx(metrics["test/nll/text"])
    assert {"test/perplexity/text", "test/bits_per_byte/text"} <= metrics.keys()
    assert result["ledger"]["train"]["blocks"] == blocks
    assert (result["mask"], result["answers"]) == ("whole_sequence", {})
    assert "test_answers" not in capsys.readouterr().out
    rows = [json.loads(line) for line in (run.folder / "test_records.jsonl").read_text().splitlines()]
    assert len(rows) == result["ledger"]["test"]["documents"]
    assert sum(row["tokens"]["text"] for row in rows) == metrics["test/tokens/text"]
    _check_export(run)
    _check_study(run, metrics)


def _check_samples(run: Run) -> None:
    samples = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    assert {row["step"] for row in samples} == {0, 4}
    first, *held_out = samples[:3]
    assert (first["prompt"], first["reference"]) == ("Once", None)
    for row in held_out:
        assert row["prompt"].startswith("Sheep ")
        assert row["reference"]
        assert "<|endoftext|>" not in row["reference"]


def _check_study(run: Run, metrics: dict[str, float]) -> None:
    """A study pairs documents by their bytes, whichever tokenizer encoded them."""
    trial = read_trial(run.folder / "result.json", "text")
    assert trial is not None
    bits = trial.sums["bits_per_byte"]
    texts = {text for text in articles(60) if len(text.encode()) in {int(weight) for _, weight in bits.values()}}
    assert len(bits) == len(trial.sums["text"])
    assert texts
    whole = sum(value for value, _ in bits.values()) / sum(weight for _, weight in bits.values())
    assert whole == pytest.approx(metrics["test/bits_per_byte/text"], rel=0.01)
    assert trial.curve[-1][0] == 6
    assert trial.curve[-1][1] == {"text": _json(run.folder / "fit.json")["last"]["loss"]}


def _check_export(run: Run) -> None:
    model, tokenizer = (kind.from_pretrained(run.model) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 256
    assert tokenizer.chat_template is None
    assert _json(run.model / "lit_sft.json")["template"] == "plain"
    opened = open_model("text", str(run.folder))
    assert opened.encoder.template.name == "plain"
    assert open_model("model", str(run.model)).encoder.template.name == "plain"


def test_loss_mode_ablation_is_refused_and_leaves_no_run(config: str, tmp_path: Path) -> None:
    callbacks = [{"class_path": "callbacks.LossModeAblation"}]
    with pytest.raises(UserError, match=r"LossModeAblation compares loss masks, and a text run .* remove it"):
        train(read_settings(config, {"trainer.callbacks": callbacks}))
    assert not (tmp_path / "runs").exists()


def test_too_small_blocks_are_refused_in_one_line(config: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sentence of their [\d,]+ tokens fits in 8\. Raise `--data\.block_size`"):
        train(read_settings(config, {"data.block_size": 8}))
    assert not (tmp_path / "runs").exists()


def test_files_that_are_not_read_are_named(write: Callable[..., str], tokenizer_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    write("books/a.jsonl", [{"text": text, "page": 3} for text in articles(20)])
    write("books/notes.pdf", "not read")
    data = TextDataModule(str(folder), tokenizer=tokenizer_folder, val_fraction=0, test_fraction=0, block_size=32)
    data.prepare_data()
    data.setup("fit")
    console = Console(record=True, width=200)
    print_text_ledger(console, data)
    printed = console.export_text()
    assert "notes.pdf" in printed
    assert "page" in printed


def test_wrapped_lines_are_reported_at_every_start(write: Callable[..., str], tokenizer_folder: str) -> None:
    line = "a line of a book that goes on in the next line, as if typed by hand number"
    file = write("a.txt", "".join(f"{line} {n}\n" + "\n" * (n % 9 == 8) for n in range(300)))
    settings: dict[str, Any] = {"tokenizer": tokenizer_folder, "val_fraction": 0, "test_fraction": 0, "block_size": 32}
    for _ in range(2):
        data = TextDataModule(file, **settings)
        data.prepare_data()
        data.setup("fit")
        console = Console(record=True, width=300)
        print_text_ledger(console, data)
        assert f"train: {file}: the lines look wrapped" in console.export_text()
        assert len(data.ledgers["train"]["notices"]) == 1
    data = TextDataModule(file, **settings, txt_documents="paragraph")
    data.prepare_data()
    data.setup("fit")
    assert data.ledgers["train"]["notices"] == []
    assert data.ledgers["train"]["documents"] == 34


@pytest.mark.parametrize("cleaning", [None, ["nfc"]])
def test_cleaning_is_printed_if_there_are_rules(
    cleaning: list[str] | None, write: Callable[..., str], tokenizer_folder: str
) -> None:
    texts = write("texts.jsonl", [{"text": text} for text in articles(20)])
    data = TextDataModule(texts, tokenizer=tokenizer_folder, cleaning=cleaning, block_size=32)
    data.prepare_data()
    data.setup("fit")
    console = Console(record=True, width=200)
    print_text_ledger(console, data)
    assert ("cleaning train" in console.export_text()) == (cleaning is not None)
