"""The commands as a user types them, in this process: what they write, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_sft.__main__ import COMMANDS, main
from lit_sft.models.backbone import build_backbone
from lit_sft.models.saving import load_weights
from lit_sft.settings.reading import read_settings
from tests.conftest import MODELS, alpaca_rows, chat_rows

Write = Callable[..., str]


@pytest.fixture
def config(write: Write, tokenizer_folder: str, tmp_path: Path) -> dict[str, Any]:
    """A run of two steps."""
    return {
        "seed_everything": 1,
        "model": {
            "backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder},
            "optimizer": {"lr": 1e-3},
            "generation": {"max_new_tokens": 4},
        },
        "data": {
            "train": write("rows.jsonl", alpaca_rows(24)),
            "val_fraction": 0.2,
            "test_fraction": 0.2,
            "template": "chatml",
        },
        "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        "run": {"root": str(tmp_path / "runs"), "name": "tiny"},
    }


@pytest.fixture
def path(config: dict[str, Any], write: Write) -> str:
    return write("tiny.yaml", yaml.safe_dump(config))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def run(*arguments: str) -> None:
    assert main(list(arguments)) == 0


def test_fit_then_test_predict_validate_and_export_of_the_newest_run(
    path: str, root: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = root / "tiny" / "version_0"
    said = capsys.readouterr().out
    assert f"next    python -m lit_sft test {folder}\nor      python -m lit_sft preview {folder}\n" in said
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
    with pytest.raises(SystemExit) as end:
        main(["fit", "--help"])
    assert end.value.code == 0
    assert "--data.mask {whole_sequence,output_only,firefly_multi_turn}" in capsys.readouterr().out


ODD = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
BAD_JSON = '{"instruction": "a", "output": "b"}\n{"instruction": "a", "output": "b"}\n{"instruction": \n'

# what is wrong: files to write, options to add, what the message must say
WRONG: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "unknown command": ({}, ["COMMAND", "fti"], "no command 'fti'; did you mean fit"),
    "missing config": ({}, ["--config", "no.yaml"], "--config: .*no.yaml: no such file; check the path"),
    "broken yaml": ({"b.yaml": "data: [\n"}, ["--config", "{b.yaml}"], "b.yaml:2: not valid YAML"),
    "misspelt yaml key": ({"b.yaml": "data: {traain: x}\n"}, ["--config", "{b.yaml}"], "'data.traain'; did you mean data.train"),
    "misspelt option": ({}, ["--data.masks", "x"], "--data.masks x; did you mean --data.mask"),
    "unknown mask": ({}, ["--data.mask", "outputs"], "expected one of .'whole_sequence', 'output_only', .* outputs"),
    "word for a number": ({}, ["--trainer.max_steps", "many"], '--trainer.max_steps: expected a whole number, got many'),
    "missing data file": ({}, ["--data.train", "no/rows.json"], "no/rows.json: no such file or folder; check the path"),
    "zero epochs": ({}, ["--trainer.max_epochs", "0"], "--trainer.max_epochs 0: expected 1 or more"),
    "negative steps": ({}, ["--trainer.max_steps", "-5"], "--trainer.max_steps -5: expected 1 or more, or -1 for no limit"),
    "mask with a hyphen": ({}, ["--data.mask", "output-only"], "--data.mask: expected one of .*; did you mean output_only"),
    "no room for a token": ({}, ["--data.token_budget", "0"], "--data.token_budget 0: expected at least 1"),
    "null": ({"b.yaml": "trainer: {max_steps: null}\n"}, ["--config", "{b.yaml}"], "--trainer.max_steps: cannot be null .int.; leave it out for its default, -1"),
    "null of the data": ({"b.yaml": "data: {batch_size: null}\n"}, ["--config", "{b.yaml}"], "--data.batch_size: cannot be null .int."),
    "null of the model": ({"b.yaml": "model: {optimizer: {lr: null}}\n"}, ["--config", "{b.yaml}"], "--model.optimizer.lr: cannot be null .float."),
    "no data": ({}, ["--data.train", "null"], "no data: set `--data.train FILE`"),
    "empty file": ({"b.jsonl": ""}, ["--data.train", "{b.jsonl}"], "b.jsonl: the file is empty; expected at least one"),
    "bad json on line 3": ({"b.jsonl": BAD_JSON}, ["--data.train", "{b.jsonl}"], "b.jsonl:3: not valid JSON .*correct this"),
    "unknown file type": ({"b.xml": "x"}, ["--data.train", "{b.xml}"], "b.xml: unknown file type '.xml'; expected .json"),
    "wrong fields": ({"b.jsonl": [{"q": "a", "a": "b"}]}, ["--data.train", "{b.jsonl}"], "b.jsonl:1: no known format has the fields q, a; expected"),
    "wrong type": ({"b.jsonl": [{"instruction": 1, "output": "b"}]}, ["--data.train", "{b.jsonl}"], "b.jsonl:1: field 'instruction' is the number 1; expected a string"),
    "odd turns": ({"b.jsonl": [ODD]}, ["--data.train", "{b.jsonl}"], "b.jsonl:1: turn 2 is 'user' after 'user'; expected 'assistant'.*on_invalid drop"),
    "no answer": ({"b.jsonl": [{"instruction": "a"}]}, ["--data.train", "{b.jsonl}"], "b.jsonl:1: no answer to train on"),
    "text under output_only": ({"b.jsonl": [{"text": f"t{n}"} for n in range(9)]}, ["--data.train", "{b.jsonl}"], "supervises no token of the .* For plain text, set `--data.mask whole_sequence`"),
    "all too long": ({}, ["--data.max_length", "3"], "--data.max_length 3 is too small: none of the train records fit .*. Raise it: their median length is .* tokens, the longest has"),
    "validation too long": ({}, ["--data.max_length", "3", "--data.val", "ROWS"], "--data.max_length 3 is too small: none of the val records fit .* longer than 3 tokens"),
    "all invalid": ({"b.jsonl": [{"q": 1}, {"q": 2}]}, ["--data.train", "{b.jsonl}", "--data.on_invalid", "drop"], "b.jsonl: all 2 records are invalid: 2 like .*b.jsonl:1: no known format"),
    "two lists": ({"b.json": "[]\n[]"}, ["--data.train", "{b.json}"], "b.json:2: found .* after the end of the list"),
    "longer than the model": ({}, ["--data.max_length", "513"], "--data.max_length 513: the model reads at most 512 tokens; set it to 512"),
    "over-long is an error": ({}, ["--data.max_length", "40", "--data.over_long", "error"], r"rows.jsonl:\d+: \d+ tokens; expected at most 40. Raise"),
    "fractions": ({}, ["--data.val_fraction", "0.7", "--data.test_fraction", "0.4"], "--data.val_fraction 0.7 .*less than 1 together"),
    "callback's own": ({}, ["--trainer.callbacks+=callbacks.LossModeAblation", "--trainer.callbacks.max_columns=0"], "lit_sft fit: LossModeAblation max_columns 0: expected at least 1"),
    "zero share": ({}, ["--data.train_fraction", "0"], "--data.train_fraction 0.*: expected a share above 0"),
    "negative seed": ({}, ["--seed_everything", "-5"], "--seed_everything -5: expected a whole number from 0 to 4294967295"),
    "negative workers": ({}, ["--data.num_workers", "-1"], "--data.num_workers -1: expected 0 or more processes"),
    "zero batch size": ({}, ["--data.batch_size", "0"], "--data.batch_size 0: expected at least 1 row"),
    "prompt weight": ({}, ["--data.prompt_weight", "2"], "--data.prompt_weight 2.*between 0 and 1"),
    "missing tokenizer": ({}, ["--model.backbone.tokenizer", "./nowhere"], "./nowhere: no such folder .* and not a model name on the hub"),
    "missing model": ({}, ["--model.backbone.config", "null", "--model.backbone.pretrained", "./nowhere"], "--model.backbone.pretrained ./nowhere: no such folder"),
    "no model: set either": ({}, ["--model.backbone.pretrained", "gpt2"], "no model: set either"),
    "unknown model setting": ({}, ["--model.backbone.config.n_layers", "2"], "gpt2 has no setting n_layers; did you mean n_layer"),
    "unknown module": ({}, ["--model.backbone.tuning", "lora", "--data.template", "plain", "--model.backbone.lora.target_modules", "[q_proj]"], "no linear layer 'q_proj'; it has c_attn"),
    "two warm-ups": ({}, ["--model.optimizer.warmup_steps", "1", "--model.optimizer.warmup_ratio", "0.1"], "are both set; expected one"),
    "fp16 on a cpu": ({}, ["--trainer.precision", "16-mixed"], "--trainer.precision 16-mixed: fp16 on a CPU is .* Use"),
    "unwritable runs": ({"file": "x"}, ["--run.root", "{file}"], "--run.root .*file: cannot create a folder there .* choose another"),
    "unwritable cache": ({"file": "x"}, ["--data.cache_dir", "{file}"], "--data.cache_dir .*file: cannot write there .* choose another"),
    "no template marker": ({}, ["--data.template", "tokenizer"], "the tokenizer has no chat template; use"),
    "corrupt checkpoint": ({"b.ckpt": "junk"}, ["--ckpt_path", "{b.ckpt}"], "--ckpt_path .*b.ckpt: damaged, truncated or not a checkpoint"),
    "heads that do not divide": ({}, ["--model.backbone.config.n_head", "3"], "--model.backbone.config: n_head 3 does not divide n_embd 32; change"),
    "heads as text": ({}, ["--model.backbone.config.n_head", "two"], "--model.backbone.config.n_head: expected a whole number, got 'two'"),
    "negative number of examples": ({}, ["COMMAND", "preview", "--config", "CONFIG", "--num", "-1"], "^lit_sft preview: --num: expected a whole number, at least 1, got -1$"),
    "missing value of --config": ({}, ["--config"], "^lit_sft fit: --config: has no value; add a file, such as `--config"),
    "no value": ({}, ["--data.train"], "^lit_sft fit: --data.train: has no value; add one after it, or write `--data.train=VALUE`"),
    "unknown split": ({}, ["COMMAND", "preview", "--config", "CONFIG", "--split", "tran"], "--split: expected one of .*, got tran; did you mean train"),
    "unknown strategy": ({}, ["--trainer.strategy", "dpp"], "--trainer.strategy dpp: unknown; did you mean ddp"),
    "no gpu": ({}, ["--trainer.accelerator", "cuda"], "--trainer.accelerator cuda: PyTorch finds no such device .*; expected"),
    "no accumulation": ({}, ["--trainer.accumulate_grad_batches", "0"], "--trainer.accumulate_grad_batches 0: expected 1 or more"),
    "run outside its root": ({}, ["--run.name", "../evil"], "--run.name ../evil: expected a plain name"),
    "warm-up beyond the run": ({}, ["--model.optimizer.warmup_ratio", "2"], "warmup_ratio 2.0: expected a fraction"),
    "validation without a target": ({"t.txt": "words"}, ["--data.val", "{t.txt}"], "supervises no token of the 1 val example "),
    "validation is the training set": ({}, ["--data.val", "ROWS"], "can be used for training .* also in a held-out split"),
    "beta above one": ({}, ["--model.optimizer.betas", "[1.5,0.9]"], "--model.optimizer.betas .1.5, 0.9., eps 1e-08: expected betas"),
    "negative eps": ({}, ["--model.optimizer.eps", "-1"], "eps -1: expected"),
    "no rank": ({}, ["--model.backbone.tuning", "lora", "--model.backbone.lora.rank", "0"], "--model.backbone.lora.rank 0: expected 1 or more"),
    "no scale": ({}, ["--model.backbone.lora.alpha", "0"], "--model.backbone.lora.alpha 0.0: expected more than 0"),
    "negative dropout": ({}, ["--model.backbone.lora.dropout", "-1"], "--model.backbone.lora.dropout -1.0: expected at least 0 and below 1"),
    "unknown layer to save": ({}, ["--model.backbone.tuning", "lora", "--data.template", "plain", "--model.backbone.lora.modules_to_save", "[wte2]"], "modules_to_save: this model has no layer 'wte2'; did you mean wte"),
    "seed in words": ({}, ["--seed_everything", "true"], "--seed_everything true: expected a whole number; without one"),
    "seed below zero": ({}, ["--seed_everything=-5"], "--seed_everything -5: expected a whole number"),
    "null seed": ({}, ["--seed_everything", "null"], "--seed_everything: .*null"),
    "validation every zero epochs": ({}, ["--trainer.check_val_every_n_epoch", "0"], "--trainer.check_val_every_n_epoch 0: expected 1 or more"),
    "negative clipping": ({}, ["--trainer.gradient_clip_val=-1"], "--trainer.gradient_clip_val -1: expected 0 or more"),
    "negative answers": ({}, ["--answers=-1"], "--answers -1: expected 0 or more"),
    "gpu numbers on a cpu": ({}, ["--trainer.accelerator", "cpu", "--trainer.devices", "0,1"], "--trainer.devices 0,1: expected the number of devices"),
    "missing engine": ({}, ["--trainer.precision", "transformer-engine"], "transformer.?engine"),
    "linked setting": ({}, ["--data.context_length", "64"], "--data.context_length: follows the settings of the model"),
    "run beside a config": ({}, ["runs/x"], "runs/x: not expected here. A run goes first"),
    "time below zero": ({}, ["--trainer.max_time", "-1:00:00:00"], "--trainer.max_time: has no value; .* `--trainer.max_time=VALUE`"),
    "no length": ({}, ["--trainer.max_steps", "-1", "--trainer.max_epochs", "-1"], "run length not set: give `--trainer.max_epochs`"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_ends_in_one_located_message(
    what: str,
    path: str,
    root: Path,
    write: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, options, message = WRONG[what]
    places = {f"{{{name}}}": write(name, content) for name, content in files.items()}
    places |= {"ROWS": str(Path(path).parent / "rows.jsonl"), "CONFIG": path}
    options = [places.get(option, option) for option in options]
    arguments = options[1:] if options[0] == "COMMAND" else ["fit", "--config", path, *options]
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert [line for line in said if line.startswith(("lit_sft ", "lit_sft: "))] == said[-1:]
    assert re.search(message, said[-1]), said[-1]
    assert not list(root.rglob("*.ckpt"))
    assert not list(root.rglob("version_*"))


def test_the_table_of_wrong_inputs_has_at_least_twenty_rows() -> None:
    assert len(WRONG) >= 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "no/such/run"], "no/such/run: no such run folder; expected one such as"),
        (["test", "--run.root", "no/runs"], "no/runs: no run with a checkpoint. Train one first"),
        (["export", "no/such.ckpt"], "no/such.ckpt: no such checkpoint"),
        (["preview", "no/such/run"], "no/such/run: no such run folder"),
    ],
)
def test_commands_on_runs_name_what_is_missing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_invalid_and_over_long_records_are_listed(
    path: str, root: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write("mixed.jsonl", [*alpaca_rows(12), ODD, {"instruction": 1}, *chat_rows(2)])
    options = ["--data.format", "alpaca", "--data.on_invalid", "drop", "--data.max_length", "40"]
    run("fit", "--config", path, "--data.train", rows, *options)
    assert "answers were cut or lost, because conversations are longer than --data.max_length 40." in (
        capsys.readouterr().out
    )
    ledger = json.loads((root / "tiny" / "version_0" / "ledger.json").read_text())
    assert ledger["train"]["invalid"]["count"] == 4
    assert "mixed.jsonl:13: format 'alpaca' needs the field instruction" in ledger["train"]["invalid"]["first"][0]


def test_newest_run_is_the_one_started_last(path: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        run("fit", "--config", path, "--run.name", name)
    capsys.readouterr()
    run("validate", "--run.root", str(root))
    assert f"run {root / 'second' / 'version_0'}," in capsys.readouterr().out
    shutil.rmtree(root / "second" / "version_0" / "checkpoints")
    run("validate", "--run.root", str(root))
    assert f"run {root / 'first' / 'version_0'}," in capsys.readouterr().out


class StopsAt(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.step, self.number = step, number

    def on_before_backward(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def final_weights(run_folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    return weights["state_dict"]  # type: ignore[return-value]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_exits_and_resuming_gives_the_same_weights(
    path: str, root: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    before = signal.getsignal(number)
    longer = ["fit", "--config", path, "--trainer.max_steps", "5"]
    run(*longer)
    stop = f"[{{class_path: tests.lit_sft.cli.test_commands.StopsAt, init_args: {{step: 1, number: {int(number)}}}}}]"
    with pytest.raises(SystemExit) as ended:
        main([*longer, "--trainer.callbacks", stop])
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before
    interrupted = root / "tiny" / "version_1"
    said = capsys.readouterr().err
    assert f"stopped after step 2; saved in {interrupted}/checkpoints/last.ckpt" in said
    assert f"to continue: python -m lit_sft fit --resume {interrupted}" in said
    run("fit", "--resume", "--run.root", str(root), "--trainer.callbacks", "null")
    straight, resumed = (final_weights(root / "tiny" / f"version_{n}") for n in range(2))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not (root / "tiny" / "version_2").exists()
    steps = [json.loads((root / "tiny" / f"version_{n}" / "fit.json").read_text())["steps"] for n in range(2)]
    assert steps == [5, 5]


def test_resume_skips_a_broken_checkpoint_with_a_message(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    checkpoints = root / "tiny" / "version_0" / "checkpoints"
    whole = (checkpoints / "last.ckpt").read_bytes()
    (checkpoints / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    run("fit", "--resume", str(checkpoints.parent), "--trainer.max_steps", "4")
    said = capsys.readouterr().out
    assert f"skipping {checkpoints / 'last.ckpt'}: it cannot be read" in said
    assert "its config.yaml and best.ckpt" in said
    (checkpoints / "best.ckpt").write_bytes(b"")
    (checkpoints / "last.ckpt").write_bytes(b"")
    assert main(["fit", "--resume", str(checkpoints.parent)]) == 2
    assert (
        "no intact checkpoint (best.ckpt, last.ckpt: damaged, truncated or not a checkpoint of a run). Run `fit` again."
        in capsys.readouterr().err
    )
    best = checkpoints / "best.ckpt"
    assert main(["test", str(checkpoints.parent)]) == 2
    assert f"lit_sft test: {best}: damaged" in capsys.readouterr().err  # the user named the run
    assert main(["test", str(best)]) == 2
    assert f"lit_sft test: {best}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "--resume", "RUN"], "--resume: only for `fit`; name the run itself: `python -m lit_sft test RUN`"),
        (["test", "RUN", "--ckpt_path", "x.ckpt"], "--ckpt_path: the run already determines the checkpoint"),
        (["validate", "RUN", "--ckpt_path=null"], "--ckpt_path: the run already determines the checkpoint"),
        (["fit", "--resume", "RUN", "--ckpt_path", "x.ckpt"], "--ckpt_path: a resumed run continues from its newest"),
    ],
)
def test_options_that_would_mix_two_runs_are_refused(
    arguments: list[str], message: str, path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = root / "tiny" / "version_0"
    before = sorted(root.rglob("*"))
    assert main([str(folder) if argument == "RUN" else argument for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_curves_are_offered_only_if_there_are_any(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", "--config", path, "--trainer.logger", "false")
    assert "tensorboard" not in capsys.readouterr().out
    run("fit", "--config", path)
    assert "curves  tensorboard --logdir" in capsys.readouterr().out


def test_resuming_with_more_steps_continues_but_another_mask_is_refused(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = str(root / "tiny" / "version_0")
    run("fit", "--resume", folder, "--trainer.max_steps", "3")
    assert json.loads((Path(folder) / "fit.json").read_text())["steps"] == 3
    assert main(["fit", "--resume", folder, "--data.mask", "whole_sequence"]) == 2
    assert '--data.mask was "output_only" and is now "whole_sequence"' in capsys.readouterr().err
    run("fit", f"--resume={folder}", "--trainer.max_steps", "4")  # the refused command has changed nothing
    assert yaml.safe_load((Path(folder) / "config.yaml").read_text())["data"]["mask"] == "output_only"
    assert json.loads((Path(folder) / "fit.json").read_text())["before"]


def test_deleting_a_data_file_during_training_has_no_effect(path: str, root: Path) -> None:
    vanish = "[{class_path: tests.lit_sft.cli.test_commands.Vanishes, init_args: {file: ROWS}}]"
    rows = Path(path).parent / "rows.jsonl"
    run("fit", "--config", path, "--trainer.callbacks", vanish.replace("ROWS", str(rows)))
    assert not rows.exists()
    assert (root / "tiny" / "version_0" / "checkpoints" / "last.ckpt").exists()


class Vanishes(Callback):
    """Removes a file in the first step."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_start(self, *_: Any) -> None:
        self.file.unlink(missing_ok=True)


def test_run_is_resumed_under_any_name_and_reports_if_already_finished(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    moved = root.parent / "elsewhere" / "my run"
    shutil.copytree(root / "tiny" / "version_0", moved)
    capsys.readouterr()
    run("fit", "--resume", str(moved))
    said = capsys.readouterr().out
    assert "nothing left to do after step 2: max_steps reached; to continue, raise --trainer.max_steps\n" in said
    modes = {file.stat().st_mode & 0o777 for file in (moved / "model").iterdir()}
    assert len(modes) == 1


def test_last_checkpoint_is_from_the_last_step_even_if_another_was_better(path: str, root: Path) -> None:
    every_step = ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "1"]
    run("fit", "--config", path, "--trainer.max_steps", "5", "--model.optimizer.lr", "3.0", *every_step)
    folder = root / "tiny" / "version_0" / "checkpoints"
    steps = {name: torch.load(folder / f"{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")}
    assert steps["best"] < steps["last"] == 5
