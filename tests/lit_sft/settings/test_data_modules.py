"""`data_module: text` gives `data` the options of text runs; options of the other kind are refused with advice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from lit_sft.__main__ import main
from lit_sft.settings.data_modules import data_module_of
from lit_sft.settings.reading import parse_settings, read_settings

MODEL = {"backbone": {"config": {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "n_positions": 64}}}


@pytest.fixture
def config(tmp_path: Path, tokenizer_folder: str) -> Callable[..., str]:
    def _config(name: str = "c.yaml", **settings: Any) -> str:
        model = {"backbone": {**MODEL["backbone"], "tokenizer": tokenizer_folder}}
        values = {"model": model, "data": {"train": "rows.jsonl"}, "trainer": {"max_steps": 1}, **settings}
        (tmp_path / name).write_text(yaml.safe_dump(values), encoding="utf-8")
        return str(tmp_path / name)

    return _config


def test_a_config_without_the_key_fine_tunes(config: Callable[..., str]) -> None:
    settings = read_settings(config())
    assert settings.config.data_module == "sft"
    assert isinstance(settings.data_module(), SFTDataModule)


@pytest.mark.parametrize("where", ["config", "command line"])
def test_a_text_run_is_asked_for_in_a_config_or_on_the_command_line(config: Callable[..., str], where: str) -> None:
    if where == "config":
        settings = read_settings(config(data_module="text"), {"data.blocks": "best_fit"})
    else:
        settings = parse_settings(["--data_module=text", "--config", config(), "--data.blocks", "best_fit"])
    data = settings.data_module()
    assert isinstance(data, TextDataModule)
    assert (data.blocks, data.block_size, data.seed) == ("best_fit", 64, 42)


def test_the_last_one_wins(config: Callable[..., str]) -> None:
    text, plain, sft = config("a.yaml", data_module="text"), config("b.yaml"), config("c.yaml", data_module="sft")
    assert data_module_of(["--config", text, "--config", plain]) == "text"
    assert data_module_of(["--config", text, "--config", sft]) == "sft"
    assert data_module_of(["--config", text, "--data_module", "sft"]) == "sft"
    assert data_module_of(["--data_module", "text", "--config", "missing.yaml"]) == "text"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data.mask", "output_only"],
            "--data.mask: a setting of fine-tuning, and this is a text run (data_module: text). Remove it; text runs "
            "train on every token.",
        ),
        (["--data.max_length", "5"], "--data.max_length: a setting of fine-tuning, and this is a text run "
         "(data_module: text). Remove it, or set `--data.block_size` instead."),
        (["--data.predict", "x"], "--data.predict: a setting of fine-tuning, and this is a text run (data_module: "
         "text). Remove it."),
        (["--data.block", "stream"], "unrecognized arguments: --data.block; did you mean --data.blocks"),
        (["--data.blocks", "streams"], "did you mean 'stream'?"),
    ],
)  # fmt: skip
def test_wrong_options_of_a_text_run_are_one_line(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["fit", "--config", config(data_module="text"), *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.replace("'stream'", "stream") in said


def test_settings_of_the_other_kind_in_a_config_are_named_with_their_line(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(data_module="text", data={"train": "x.txt", "template": "chatml"})
    assert main(["fit", "--config", path]) == 2
    assert f"{path}:2: --data.template: a setting of fine-tuning" in capsys.readouterr().err
    path = config(data={"train": "x.txt", "blocks": "stream"})
    assert main(["fit", "--config", path]) == 2
    assert f"{path}:2: --data.blocks: a setting of text runs; add `data_module: text`" in capsys.readouterr().err
    path = config(data_module="txt")
    assert main(["fit", "--config", path]) == 2
    assert f"{path}: --data_module txt: expected one of sft, text; did you mean text?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "preview", "lint"])
def test_commands_for_conversations_refuse_a_text_run(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--config", config(data_module="text")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{command} is for conversations, and this is a text run (data_module: text)" in said


def test_help_says_how_to_see_the_options_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for name in ("sft", "text"):
        assert main(["fit", "--data_module", name, "--help"]) == 0
        shown[name] = capsys.readouterr().out
    assert "`fit --data_module text --help`" in " ".join(shown["sft"].split())
    assert "--data.mask" in shown["sft"]
    assert "--data.blocks" not in shown["sft"]
    assert "--data.mask" not in shown["text"]
