"""Somebody else's run folder runs no code, whichever command opens it, until the command line allows it."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_sft.__main__ import main
from lit_sft.settings.parser import Source
from lit_sft.settings.reading import parse_settings, read_settings
from lit_sft.settings.trust import own_code
from tests.conftest import MODELS, alpaca_rows, byte_tokenizer

ROOT = Path(__file__).parents[3]

EVIL = """
from pathlib import Path
Path(MARK).touch()
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
class Evil(Callback):
    pass
class EvilLogger(CSVLogger):
    pass
def run(*_):
    pass
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, its data and tokenizer beside it."""
    folder = tmp_path_factory.mktemp("trained")
    byte_tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(24)))
    config = {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": str(folder / "tokenizer")}},
        "data": {"train": str(folder / "rows.jsonl"), "template": "chatml"},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "run": {"root": str(folder / "runs"), "name": "tiny"},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_SFT_CACHE", str(folder / "cache"))
        assert main(["fit", "--config", str(folder / "tiny.yaml")]) == 0
    return folder


class Foreign:
    """A copy of the run whose config an attacker has changed, beside a module that leaves a mark when it is imported."""

    def __init__(self, trained: Path, folder: Path) -> None:
        self.run, self.mark, self.trained = folder / "run", folder / "mark", trained
        shutil.copytree(trained / "runs" / "tiny" / "version_0", self.run)
        self.config = self.run / "config.yaml"
        for place in (folder, self.run):
            (place / "evil_code.py").write_text(EVIL.replace("MARK", repr(str(self.mark))))

    def change(self, **sections: dict[str, Any]) -> None:
        values = yaml.safe_load(self.config.read_text())
        for section, settings in sections.items():
            values[section] = {**values[section], **settings}
        self.config.write_text(yaml.safe_dump(values))


@pytest.fixture
def foreign(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = Foreign(trained, tmp_path)
    yield found
    sys.modules.pop("evil_code", None)


def spec(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": init_args}


LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
DDP = "lightning.pytorch.strategies.DDPStrategy"
ATTACKS: dict[str, dict[str, Any]] = {
    "callback": {"callbacks": [spec("evil_code.Evil")]},
    "callback by its name": {"callbacks": ["evil_code.Evil"]},
    "one callback": {"callbacks": "evil_code.Evil"},
    "appended callback": {"callbacks+": [spec("evil_code.Evil")]},
    "logger": {"logger": spec("evil_code.EvilLogger", save_dir=".")},
    "loggers": {"logger": [spec("evil_code.EvilLogger", save_dir=".")]},
    "strategy": {"strategy": spec("evil_code.Evil")},
    "plugin": {"plugins": [spec("evil_code.Evil")]},
    "profiler": {"profiler": spec("evil_code.Evil")},
    "accelerator": {"accelerator": spec("evil_code.Evil")},
    "plugin of a strategy": {"strategy": spec(DDP, checkpoint_io=spec("evil_code.Evil"))},
    "function": {"callbacks": [spec(LAMBDA, on_test_start="evil_code.run", on_train_start="evil_code.run")]},
    "known function": {"callbacks": [spec(LAMBDA, on_test_start="torch.hub.load", on_train_start="torch.hub.load")]},
    "function of an operating system": {"callbacks": [spec(LAMBDA, on_test_start="os.system")]},
    "callable object": {"callbacks": [spec(LAMBDA, on_test_start=spec("torch.nn.Identity"))]},
    "borrowed module": {"callbacks": [spec("lightning.pytorch.cli.os.system")]},
    "borrowed class": {"callbacks": [spec("lightning.pytorch.cli.Path")]},
    "class that is no callback": {"callbacks": [spec("torch.nn.Identity")]},
    "class as text": {"callbacks": ["{class_path: evil_code.Evil}"]},
    "settings of another file": {"callbacks": "other.yaml"},
    "settings of a file with a plain name": {"callbacks": "other"},
    "settings of another file in a strategy": {"strategy": spec(DDP, checkpoint_io="other")},
}


def write_other(folder: Path) -> None:
    for name in ("other", "other.yaml"):
        (folder / name).write_text("class_path: evil_code.Evil\n")


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_run_names_is_refused_before_it_is_imported(
    foreign: Foreign, attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign.change(trainer=ATTACKS[attack])
    write_other(foreign.run)
    assert main(["fit", "--resume", str(foreign.run), "--trainer.max_steps", "2"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"config\.yaml|--trainer\.", said), said
    assert not foreign.mark.exists()


HIDDEN = [
    spec("evil_code.Evil"),
    "{class_path: evil_code.Evil}",
    '{"class_p\\x61th": evil_code.Evil}',
    "['{class_path: evil_code.Evil}']",
    '"{class_path: evil_code.Evil}"',
]


@pytest.mark.parametrize("value", HIDDEN, ids=str)
def test_where_a_setting_takes_any_value_no_class_is_hidden(foreign: Foreign, value: Any) -> None:
    values = yaml.safe_load(foreign.config.read_text())
    values["model"]["backbone"]["config"]["summary_type"] = value
    foreign.config.write_text(yaml.safe_dump(values))
    with contextlib.suppress(ValueError):
        read_settings(foreign.config, run_config=foreign.config).model()
    assert not foreign.mark.exists()


COMMANDS: dict[str, Callable[[Foreign], list[str]]] = {
    "test": lambda foreign: ["test", str(foreign.run)],
    "validate": lambda foreign: ["validate", str(foreign.run / "checkpoints" / "last.ckpt")],
    "predict": lambda foreign: ["predict", str(foreign.run), "--data.predict", str(foreign.trained / "rows.jsonl")],
    "resume": lambda foreign: ["fit", "--resume", str(foreign.run), "--trainer.max_steps", "2"],
    "its config": lambda foreign: ["fit", "--config", str(foreign.config)],
    "other folder": lambda foreign: ["validate", str(moved(foreign) / "last.ckpt")],
}
WRITERS = [
    spec("lit_sft.runs.predictions.PredictionWriter", folder=".", output="owned"),
    spec("PredictionWriter", folder=".", output="owned"),
    spec("lit_sft.training.preemption.RunKeeper", folder="owned"),
    spec("lit_sft.cli.commands.PredictionWriter", folder=".", output="owned"),
]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer["class_path"])
def test_run_may_not_name_internal_callbacks_that_write_files(
    foreign: Foreign, writer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("lit_sft.runs.predictions")  # a short name counts once its module is loaded
    foreign.change(trainer={"callbacks": [writer]})
    assert main(COMMANDS["predict"](foreign)) == 2
    assert re.search(r"names lit_sft|is not part of a trainer", capsys.readouterr().err)
    assert not Path("owned").exists()


def test_a_run_does_not_choose_where_answers_are_written(foreign: Foreign, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(foreign.config.read_text())
    foreign.config.write_text(yaml.safe_dump({**values, "output": "owned"}))
    assert main(COMMANDS["predict"](foreign)) == 0
    assert not Path("owned").exists()
    assert (foreign.run / "predictions.jsonl").is_file()
    foreign.config.write_text(yaml.safe_dump(values))
    own = foreign.run.parent / "own.yaml"
    own.write_text("output: owned\n")
    assert main([*COMMANDS["predict"](foreign), "--config", str(own)]) == 2
    assert "own.yaml:1: --output is allowed on the command line only" in capsys.readouterr().err
    assert not Path("owned").exists()


READERS: dict[str, Callable[[Foreign], list[str]]] = {
    "preview": lambda foreign: ["preview", str(foreign.run), "--num", "1"],
    "export": lambda foreign: ["export", str(foreign.run), "--output", str(foreign.run.parent / "out")],
    "report": lambda foreign: ["report", str(foreign.run), str(foreign.trained / "runs" / "tiny" / "version_0")],
}


def moved(foreign: Foreign) -> Path:
    return (foreign.run / "checkpoints").rename(foreign.run / "weights")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_needs_a_trainer_refuses(
    foreign: Foreign, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign.change(trainer={"callbacks": [spec("evil_code.Evil")]})
    assert main(COMMANDS[command](foreign)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"config\.yaml:\d+: names evil_code\.Evil, .* add `--run\.allow_code evil_code\.Evil`", said), said
    assert not foreign.mark.exists()


@pytest.mark.parametrize("command", READERS)
def test_commands_without_a_trainer_ignore_its_settings(foreign: Foreign, command: str) -> None:
    foreign.change(trainer={"callbacks": [spec("evil_code.Evil")], "logger": "evil_code.EvilLogger"})
    main(READERS[command](foreign))
    assert not foreign.mark.exists()


def test_code_is_run_once_the_command_line_allows_it_and_never_because_a_config_does(
    foreign: Foreign, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign.change(trainer={"callbacks": [spec("evil_code.Evil")]}, run={"allow_code": "evil_code"})
    assert main(["validate", str(foreign.run)]) == 2
    assert main(["validate", str(foreign.run), "--run.allow_code", "other_code"]) == 2
    assert not foreign.mark.exists()
    assert main(["validate", str(foreign.run), "--run.allow_code", "other_code,evil_code"]) == 0
    assert foreign.mark.exists()


def test_a_command_that_does_not_train_does_not_look_at_the_logger(foreign: Foreign) -> None:
    foreign.change(trainer={"logger": [spec("evil_code.EvilLogger"), spec("lightning.pytorch.loggers.WandbLogger")]})
    assert main(["validate", str(foreign.run)]) == 0
    assert not foreign.mark.exists()


def test_settings_given_on_the_command_line_are_not_read_from_the_run(foreign: Foreign) -> None:
    foreign.change(trainer={"callbacks": [spec("evil_code.Evil")]})
    assert main(["validate", str(foreign.run), "--trainer.callbacks", "null"]) == 0
    assert not foreign.mark.exists()


def test_own_config_may_name_any_class_and_opening_its_run_needs_permission(
    foreign: Foreign, capsys: pytest.CaptureFixture[str]
) -> None:
    own = foreign.run.parent / "own.yaml"
    own.write_text("trainer: {callbacks: [evil_code.Evil]}\n")
    configs = ["--config", str(foreign.trained / "tiny.yaml"), "--config", str(own)]
    assert main(["fit", *configs, "--run.root", "runs", "--run.name", "own"]) == 0
    assert foreign.mark.exists()
    assert main(["validate", "runs/own/version_0"]) == 2
    assert "add `--run.allow_code evil_code.Evil`" in capsys.readouterr().err
    assert main(["validate", "runs/own/version_0", "--run.allow_code", "evil_code.Evil"]) == 0
    assert yaml.safe_load(Path("runs/own/version_0/config.yaml").read_text())["run"]["allow_code"] is None


def test_parts_of_lightning_and_of_this_project_need_no_permission(foreign: Foreign) -> None:
    foreign.change(
        trainer={
            "callbacks": [spec("callbacks.RunHealth"), spec("lightning.pytorch.callbacks.Timer")],
            "logger": spec("lightning.pytorch.loggers.CSVLogger", save_dir="logs"),
            "profiler": "simple",
            "strategy": spec("lightning.pytorch.strategies.SingleDeviceStrategy", device="cpu"),
        }
    )
    assert main(["validate", str(foreign.run)]) == 0


@pytest.mark.parametrize("overlay", sorted(path.stem for path in (ROOT / "configs" / "overlays").glob("*.yaml")))
def test_runs_of_every_overlay_need_no_permission(trained: Path, tmp_path: Path, overlay: str) -> None:
    cli = read_settings([trained / "tiny.yaml", ROOT / "configs" / "overlays" / f"{overlay}.yaml"])
    (tmp_path / "checkpoints").mkdir()
    cli.parser.save(cli.config, tmp_path / "config.yaml", skip_none=False)
    cli.parser.source = Source()
    opened = cli.parser.parse_path(str(tmp_path / "config.yaml"))
    assert opened.trainer.strategy == cli.config.trainer.strategy


def test_foreign_package_with_our_name_is_not_imported(foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    (foreign.run.parent / "callbacks").mkdir()
    (foreign.run.parent / "callbacks" / "__init__.py").write_text(EVIL.replace("MARK", repr(str(foreign.mark))))
    for name in [name for name in sys.modules if name.partition(".")[0] == "callbacks"]:
        monkeypatch.delitem(sys.modules, name)
    foreign.change(trainer={"callbacks": [spec("callbacks.RunHealth")]})
    assert main(["validate", str(foreign.run)]) == 0
    assert not foreign.mark.exists()


def test_trust_remote_code_works_on_the_command_line_only(foreign: Foreign, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(foreign.config.read_text())
    values["model"]["backbone"]["trust_remote_code"] = True
    foreign.config.write_text(yaml.safe_dump(values))
    for option, trusts in (("null", False), ("true", True)):
        given = ["--model.backbone.trust_remote_code", option] if option != "null" else []
        settings = parse_settings(["--config", str(foreign.config), *given])
        assert settings.backbone().trust_remote_code is trusts
    own = foreign.run.parent / "own.yaml"
    own.write_text("model:\n  backbone:\n    trust_remote_code: true\n")
    assert main(["fit", "--config", str(foreign.trained / "tiny.yaml"), "--config", str(own)]) == 2
    assert (
        "own.yaml:3: --model.backbone.trust_remote_code is allowed on the command line only, not in a config. Read the "
        "model's code; if you trust it, add `--model.backbone.trust_remote_code true`" in capsys.readouterr().err
    )


def test_trust_is_not_written_into_the_run(trained: Path, tmp_path: Path) -> None:
    options = ["--model.backbone.trust_remote_code", "true", "--run.allow_code", "torch", "--run.root", str(tmp_path)]
    assert main(["fit", "--config", str(trained / "tiny.yaml"), *options]) == 0
    saved = yaml.safe_load((tmp_path / "tiny" / "version_0" / "config.yaml").read_text())
    assert saved["model"]["backbone"]["trust_remote_code"] is False
    assert saved["run"]["allow_code"] is None


@pytest.mark.parametrize("path", ["a b", "../x", "jsonargparse.set_parsing_settings", "*"])
def test_what_is_allowed_must_be_an_import_path(
    foreign: Foreign, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(foreign.run), "--run.allow_code", path]) == 2
    assert f"--run.allow_code {path}: expected modules or classes" in capsys.readouterr().err


def test_custom_code_is_found_at_any_depth() -> None:
    callbacks = [
        spec("my.Own"),
        spec("lit_sft.training.preemption.RunKeeper"),
        spec("callbacks.RunHealth", inner=spec("my.Inner")),
        test_custom_code_is_found_at_any_depth,
    ]
    assert own_code({"trainer": {"callbacks": callbacks}}) == {
        "my.Own", "my.Inner", "lit_sft.training.preemption.RunKeeper", f"{__name__}.test_custom_code_is_found_at_any_depth"
    }  # fmt: skip


def test_opening_a_run_does_not_restrict_later_configs(foreign: Foreign) -> None:
    before = list(sys.path)
    assert main(["validate", str(foreign.run)]) == 0
    assert sys.path == before
    parsed = parse_settings(["--config", str(foreign.trained / "tiny.yaml"), "--trainer.callbacks+=evil_code.Evil"])
    assert parsed.config.trainer.callbacks[0].class_path == "evil_code.Evil"
