"""A wrong setting ends in one line that names the setting, the value found and the closest valid name."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_sft.__main__ import main
from lit_sft.settings.errors import is_from_parser
from tests.conftest import chat_rows

CONFIG: dict[str, Any] = {
    "model": {
        "backbone": {"config": {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1}, "tokenizer": "nowhere"},
    },
    "data": {"train": "rows.jsonl"},
    "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False},
}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command says of a config; the config is given as text or as values."""
    monkeypatch.chdir(tmp_path)

    def _said(config: Any, *options: str, command: str = "fit") -> str:
        text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False)
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        assert main([command, "--config", "c.yaml", *options]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert [line for line in lines if line.startswith("lit_sft ")] == lines[-1:]
        assert not list(tmp_path.glob("runs/*"))
        return lines[-1]

    return _said


def changed(name: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    place = config
    *sections, last = name.split(".")
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return config


SECTIONS = ("run", "trainer", "checkpoint", "data", "model", "model.backbone", "model.backbone.lora", "model.optimizer")
SHAPES: dict[str, tuple[Any, str]] = {
    "list": ([1, 2], "a list"),
    "number": (3, "the number 3"),
    "text": ("x", "the string 'x'"),
    "date": ("2020-01-01", "the string '2020-01-01'"),
    "truth": (True, "true"),
}


@pytest.mark.parametrize(
    ("section", "shape"), [*((section, "list") for section in SECTIONS), *(("data", shape) for shape in SHAPES)]
)
def test_section_that_is_not_a_mapping_is_named_with_its_line(
    said: Callable[..., str], section: str, shape: str
) -> None:
    value, words = SHAPES[shape]
    message = said(changed(section, value))
    assert re.fullmatch(
        rf"lit_sft fit: c\.yaml:\d+: --{section}: expected a mapping of settings, found {re.escape(words)}\.", message
    ), message


def test_settings_that_contradict_each_other_are_named_without_their_values(said: Callable[..., str]) -> None:
    lora = ("--model.backbone.lora.init", "pissa", "--model.backbone.lora.dora", "true")
    assert said(CONFIG, "--model.backbone.tuning", "lora", *lora).startswith(
        "lit_sft fit: --model.backbone.lora.init pissa with `dora`: "
    )


@pytest.mark.parametrize(("section", "value"), [("run", "[1, 2]"), ("model.backbone", "3"), ("data", "x")])
def test_a_section_given_as_something_else_on_the_command_line_is_named(
    said: Callable[..., str], section: str, value: str
) -> None:
    message = said(CONFIG, f"--{section}={value}")
    assert f"--{section}: expected a mapping of settings, found " in message, message


@pytest.mark.parametrize(
    ("command", "text"),
    [
        *(("fit", text) for text in ("- a\n", "3\n", "", "# nothing\n", "null\n", "a: &x [*x]\n", "{1: 2}\n")),
        *((command, "abc\n") for command in ("validate", "preview", "ablate")),
    ],
)
def test_config_that_is_not_a_mapping_is_named(said: Callable[..., str], text: str, command: str) -> None:
    assert f"lit_sft {command}: c.yaml" in said(text, command=command)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "preview", "ablate"])
def test_duplicate_key_is_refused_by_every_command(said: Callable[..., str], command: str) -> None:
    message = said("data:\n  train: a\n  mask: output_only\n  train: b\n", command=command)
    assert message == f"lit_sft {command}: c.yaml:4: duplicate key 'train' (first on line 2); remove one of the two."


def test_duplicate_key_in_a_suite_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "suite.yaml").write_text("choices:\n  a: {data: x}\n  a: {data: y}\n")
    assert main(["evaluate", "--suite", str(tmp_path / "suite.yaml"), "--models", "m=nowhere"]) == 2
    assert "suite.yaml:3: duplicate key 'a' (first on line 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{a: 1, a: 2}", "duplicate key 'a'"),
        ("&x [*x]", "refers to a value that contains it"),
        ("[", "not valid YAML"),
    ],
)
@pytest.mark.parametrize("command", ["ablate", "evaluate"])
def test_a_value_of_set_is_read_like_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, value: str, problem: str
) -> None:
    (tmp_path / "s.yaml").write_text("base: c.yaml\naxes: {x: [1, 2]}\n" if command == "ablate" else "choices: {}\n")
    of = ["--config", str(tmp_path / "s.yaml")]
    of = of if command == "ablate" else ["--suite", of[1], "--models", "m=nowhere"]
    assert main([command, *of, "--set", f"question={value}"]) == 2
    assert re.search(rf"--set question=.*:\d: .*{problem}", capsys.readouterr().err)


def test_setting_given_both_dotted_and_in_its_section_is_a_duplicate(said: Callable[..., str]) -> None:
    message = said("trainer:\n  max_steps: 1\ntrainer.max_steps: 2\n")
    assert message == "lit_sft fit: c.yaml:3: trainer.max_steps is set twice; remove one of the two."


MISSPELT = {
    "model.backbone.tunning": "model.backbone.tuning",
    "model.backbone.lora.rnk": "model.backbone.lora.rank",
    "model.optimizer.lrr": "model.optimizer.lr",
    "model.optimizer.warmup_step": "model.optimizer.warmup_steps",
    "model.generation.max_new_token": "model.generation.max_new_tokens",
    "run.nam": "run.name",
    "data.maks": "data.mask",
    "checkpoint.monitr": "checkpoint.monitor",
    "trainer.max_stepz": "trainer.max_steps",
    "trainr": "trainer",
    "model.lora": "model.backbone.lora",
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_key_at_any_depth_gets_its_suggestion(said: Callable[..., str], name: str) -> None:
    message = said(changed(name, 1))
    assert re.search(rf"c\.yaml:\d+: unknown setting '{name}'; did you mean {MISSPELT[name]}\b", message), message


@pytest.mark.parametrize("name", [name for name in MISSPELT if "." in name])
def test_a_misspelt_option_gets_its_suggestion(said: Callable[..., str], name: str) -> None:
    message = said(CONFIG, f"--{name}", "1")
    assert f"did you mean --{MISSPELT[name]}" in message, message


BITSANDBYTES = "lightning.pytorch.plugins.BitsandbytesPrecision"
CLASSES: list[tuple[str, Any, str]] = [
    ("trainer.callbacks", ["RunHelth"], "no class RunHelth; did you mean callbacks.RunHealth?"),
    ("trainer.callbacks", ["callbacks.RunHelth"], "no class callbacks.RunHelth; did you mean callbacks.RunHealth?"),
    ("trainer.callbacks", "callbacks.RunHelth", "did you mean callbacks.RunHealth?"),
    ("trainer.callbacks", [{"class_path": "callbacks.RunHelth"}], "did you mean callbacks.RunHealth?"),
    ("trainer.callbacks", ["callbacks.RunHealth", "EarlyStoping"], "did you mean lightning.pytorch.callbacks.EarlyStopping?"),
    ("trainer.callbacks", ["nopkg.Foo"], "no class nopkg.Foo; check the name"),
    ("trainer.callbacks", ["torch.nn.Linear"], "torch.nn.Linear is not a Callback"),
    ("trainer.callbacks", 3, "expected a list of Callback, a Callback or null, got 3"),
    ("trainer.callbacks", [{"class_path": 3}], "class_path: expected a name such as callbacks.RunHealth, found the number 3"),
    ("trainer.callbacks", [{"class_path": "callbacks.RunHealth", "init_args": [1]}], "init_args: expected a mapping of settings, found a list"),
    ("trainer.callbacks", [{"class_path": "callbacks.RunHealth", "init_args": {"loss_spiek": 3}}], "Option 'loss_spiek' is not accepted; did you mean loss_spike?"),
    ("trainer.logger", "TensorBoardLoger", "did you mean lightning.pytorch.loggers.TensorBoardLogger?"),
    ("data.max_length", "x", "--data.max_length: expected a whole number or null, got x"),
    ("data.train", {"a": 1}, "--data.train: expected a string, a list of strings or null, got {'a': 1}"),
    ("model.optimizer.betas", [1], "--model.optimizer.betas: Expected a tuple with 2 elements. Got value: [1]"),
    ("trainer.precision", "bf17", "did you mean bf16?"),
    ("data.mask", "output-only", "did you mean output_only?"),
    ("resume", "runs/x", "--resume is allowed on the command line only, not in a config. Add `--resume runs/x`"),
    ("model.backbone.config", {3: "x"}, "--model.backbone.config: a key is the number 3; put it in quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), CLASSES)
def test_wrong_value_gives_one_short_line(said: Callable[..., str], name: str, value: Any, message: str) -> None:
    told = said(changed(name, value))
    assert message in told
    assert len(told) < 500


TYPED = """\
seed_everything: 1
model:
  backbone:
    config: {model_type: gpt2}
    tokenizer: nowhere
    lora: {rank: 4}
data:
  train: rows.jsonl
trainer.max_steps: 5
trainer:
  accelerator: cpu
  callbacks:
    - class_path: callbacks.SampleGeneration
      init_args: {num_held_out: 1}
"""


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("seed_everything: 1", "seed_everything: x", "c.yaml:1: --seed_everything: expected true or false or a whole"),
        ("rank: 4", "rank: four", "c.yaml:6: --model.backbone.lora.rank: expected a whole number, got four"),
        (
            "train: rows.jsonl",
            "train: 3",
            "c.yaml:8: --data.train: expected a string, a list of strings or null, got 3",
        ),
        ("max_steps: 5", "max_steps: true", "c.yaml:9: --trainer.max_steps: expected a whole number, got true"),
        (
            "max_steps: 5",
            "max_steps: ''",
            "c.yaml:9: --trainer.max_steps: expected a whole number, got an empty string",
        ),
        ("accelerator: cpu", "precision: 17", "c.yaml:11: --trainer.precision: expected one of"),
        ("num_held_out: 1", "num_held_out: x", "c.yaml:12: --trainer.callbacks: --num_held_out: expected a whole"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_file_and_line(
    said: Callable[..., str], right: str, wrong: str, message: str
) -> None:
    assert said(TYPED.replace(right, wrong)).startswith(f"lit_sft fit: {message}")


def test_a_wrong_value_on_the_command_line_has_no_line(said: Callable[..., str]) -> None:
    told = said(CONFIG, "--trainer.max_steps", "ten")
    assert told == "lit_sft fit: --trainer.max_steps: expected a whole number, got ten"


def test_very_long_value_is_shown_without_its_middle(said: Callable[..., str]) -> None:
    told = said(changed("data.train", {"x" * 3000: "y" * 3000}))
    assert len(told) < 2000
    assert re.match(r"lit_sft fit: c\.yaml:\d+: --data\.train: expected a string", told)
    told = said(CONFIG, "--model.backbone.tokenizer", "z" * 4000 + "/tokenizer")
    assert len(told) < 2000
    assert told.endswith("/tokenizer: File name too long")


def test_a_message_of_a_class_itself_is_left_as_it_is() -> None:
    assert not is_from_parser("my  file.json: no such file")
    assert is_from_parser("Problem with given class_path 'a.B':\n  no")


@pytest.mark.filterwarnings("ignore")  # packages may warn about optional dependencies
@pytest.mark.parametrize(
    ("name", "value", "package"),
    [
        ("trainer.logger", "lightning.pytorch.loggers.WandbLogger", "wandb"),
        ("trainer.logger", ["lightning.pytorch.loggers.CometLogger"], "comet-ml"),
        ("trainer.logger", {"class_path": "MLFlowLogger"}, "mlflow"),
        ("trainer.plugins", {"class_path": BITSANDBYTES, "init_args": {"mode": "nf4"}}, "bitsandbytes"),
        ("trainer.plugins", [{"class_path": BITSANDBYTES, "init_args": {"mode": "nf4"}}], "bitsandbytes"),
    ],
)
def test_missing_package_of_a_class_is_named_with_its_pip_command(
    said: Callable[..., str], tokenizer_folder: str, tmp_path: Path, name: str, value: Any, package: str
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat_rows(6)))
    config = changed(name, value)
    config["model"]["backbone"]["tokenizer"] = tokenizer_folder
    message = said(config)
    assert re.search(rf" needs the package {package}, which is not installed; `pip install '?{package}\S*`\.$", message)


@pytest.mark.parametrize("command", ["fit", "preview"])
def test_a_config_that_is_not_text_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_bytes(bytes(range(128, 256)))
    assert main([command, "--config", str(tmp_path / "c.yaml")]) == 2
    assert re.search(r"c\.yaml: not UTF-8 text .*; expected a YAML file", capsys.readouterr().err)
