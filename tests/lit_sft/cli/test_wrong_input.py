"""What commands report about wrong input: one line that names the place and the fix, and no run folder is left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lit_sft.__main__ import main
from tests.conftest import alpaca_rows, chat_rows
from tests.lit_sft.cli.conftest import Write, run

ODD = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
BAD_JSON = '{"instruction": "a", "output": "b"}\n{"instruction": "a", "output": "b"}\n{"instruction": \n'

# what is wrong: files to write, options to add, what the message must say
WRONG: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "unknown command": ({}, ["COMMAND", "fti"], "no command 'fti'; did you mean fit"),
    "missing config": ({}, ["--config", "no.yaml"], "--config: .*no.yaml: no such file; check the path"),
    "broken yaml": ({"b.yaml": "data: [\n"}, ["--config", "{b.yaml}"], "b.yaml:2: not valid YAML"),
    "misspelt yaml key": ({"b.yaml": "data: {traain: x}\n"}, ["--config", "{b.yaml}"], "'data.traain'; did you mean data.train"),
    "misspelt option": ({}, ["--data.masks", "x"], "--data.masks; did you mean --data.mask"),
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
    "no model": ({}, ["--model.backbone.config", "null"], "no model: set either"),
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
    "no gpu": ({}, ["--trainer.accelerator", "cuda"], "--trainer.accelerator cuda: PyTorch finds no CUDA GPU .*; expected"),
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
    "config without its option": ({}, ["c.yaml"], "c.yaml: not expected here; did you mean `--config c.yaml`"),
    "two models": ({}, ["--model.backbone.pretrained", "./no-such-model"], "two models: .* are both set. To use the pretrained one, add `--model.backbone.config null`"),
    "semicolons": ({"b.csv": "instruction;output\n1;2\n"}, ["--data.train", "{b.csv}"], "b.csv:1: one column, .* separated by ';'; expected commas"),
    "run beside a config": ({}, ["runs/x"], "runs/x: not expected here. A run goes first"),
    "time below zero": ({}, ["--trainer.max_time", "-1:00:00:00"], "--trainer.max_time: has no value; .* `--trainer.max_time=VALUE`"),
    "word for a list": ({"t.yaml": "data_module: text\ndata: {train: x.txt}\n"}, ["COMMAND", "fit", "--config", "{t.yaml}", "--data.cleaning=nfc"], "--data.cleaning: expected a list or null, got nfc; write .nfc.$"),
    "word for a mapping": ({}, ["--data.columns=q"], "--data.columns: expected a mapping or null, got q$"),
    "word for a mixture": ({}, ["--data.mix=q"], "--data.mix: expected a list of mappings or null, got q$"),
    "empty mixture": ({}, ["--data.train", "null", "--data.mix=[]"], "--data.mix is empty; expected a list of sources"),
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
