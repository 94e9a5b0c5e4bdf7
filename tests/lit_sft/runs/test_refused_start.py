"""A run that is refused or interrupted before its first step leaves no folder; metrics to watch are checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor

from callbacks.run_health import RunHealth
from data_modules.errors import UserError
from lit_sft.__main__ import main
from lit_sft.checkpoints.callback import RunCheckpoint
from lit_sft.training.monitors import check_monitors
from tests.conftest import MODELS, alpaca_rows


class Interrupts(Callback):
    """Presses Ctrl-C, or fails, at one moment of a run."""

    def __init__(self, hook: str, error: str = "KeyboardInterrupt") -> None:
        kinds = {"KeyboardInterrupt": KeyboardInterrupt, "UserError": UserError, "RuntimeError": RuntimeError}
        self.error = kinds[error]("at this moment")
        setattr(self, hook, self._raise)

    def _raise(self, *_: Any, **__: Any) -> None:
        raise self.error


@pytest.fixture
def config(tmp_path: Path, tokenizer_folder: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(12)))
    return {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}},
        "data": {"train": "rows.jsonl", "val_fraction": 0.3, "template": "chatml"},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
    }


def fit(config: dict[str, Any], **changes: Any) -> int:
    for name, value in changes.items():
        section, _, key = name.partition("__")
        config[section][key] = value
    Path("tiny.yaml").write_text(yaml.safe_dump(config))
    return main(["fit", "--config", "tiny.yaml"])


def interrupt(hook: str, error: str = "KeyboardInterrupt") -> list[dict[str, Any]]:
    path = "tests.lit_sft.runs.test_refused_start.Interrupts"
    return [{"class_path": path, "init_args": {"hook": hook, "error": error}}]


CSV = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs", "name": "mine"}}
REFUSALS: dict[str, dict[str, Any]] = {
    "setting": {"data__prompt_weight": 3.0},
    "accelerator": {"trainer__accelerator": "gpuu"},
    "data": {"data__train": "bad.jsonl"},
    "nothing fits": {"data__max_length": 3},
    "model": {"model__backbone": {"config": MODELS["gpt2"] | {"n_head": 5}, "tokenizer": "TOKENIZER"}},
    "schedule": {"model__optimizer": {"warmup_ratio": 2.0}},
    "own callback": {"trainer__callbacks": interrupt("on_fit_start", "UserError")},
    "before training": {"trainer__callbacks": interrupt("on_train_start", "UserError")},
    "Ctrl-C in set-up": {"trainer__callbacks": interrupt("setup")},
    "Ctrl-C in validation": {"trainer__callbacks": interrupt("on_validation_batch_end")},
    "programming error": {"trainer__callbacks": interrupt("on_sanity_check_end", "RuntimeError")},
    "logger's folder": {"trainer__callbacks": interrupt("on_train_start"), "trainer__logger": CSV},
    "two loggers": {
        "trainer__callbacks": interrupt("on_train_start"),
        "trainer__logger": [CSV, {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "logs"}}],
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # loggers may warn about odd settings
@pytest.mark.parametrize("what", REFUSALS)
def test_a_run_that_never_trains_leaves_nothing(config: dict[str, Any], tokenizer_folder: str, what: str) -> None:
    Path("bad.jsonl").write_text('{"instruction": "a"}\n')
    changes = json.loads(json.dumps(REFUSALS[what]).replace("TOKENIZER", tokenizer_folder))
    before = sorted(path.name for path in Path().iterdir())
    try:
        assert fit(config, **changes) == 2
    except (SystemExit, RuntimeError, KeyboardInterrupt):
        assert "interrupt" in what or "Ctrl-C" in what or "error" in what or "logger" in what
    assert sorted(path.name for path in Path().iterdir() if path.name not in ("tiny.yaml", "cache")) == [
        name for name in before if name != "cache"
    ]


def test_ctrl_c_outside_of_training_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lit_sft.cli.export.find_run", Interrupts("setup")._raise)
    assert main(["export", "runs/x"]) == 130
    assert capsys.readouterr().err.strip() == "lit_sft export: interrupted"


def test_existing_folders_are_kept(config: dict[str, Any]) -> None:
    for name in ("runs/tiny", "logs/mine/version_7"):
        Path(name).mkdir(parents=True)
    Path("logs/mine/version_7/metrics.csv").write_text("step\n")
    with pytest.raises(SystemExit):
        fit(config, trainer__callbacks=interrupt("on_train_start"), trainer__logger=CSV)
    assert not list(Path("runs/tiny").iterdir())
    assert [path.name for path in Path("logs/mine").iterdir()] == ["version_7"]
    assert Path("logs/mine/version_7/metrics.csv").read_text() == "step\n"


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_has_begun_is_kept(config: dict[str, Any]) -> None:
    with pytest.raises(SystemExit):
        fit(config, trainer__callbacks=interrupt("on_before_zero_grad"))
    assert Path("runs/tiny/version_0/config.yaml").exists()


def watching(kind: str, monitor: str) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.callbacks.{kind}", "init_args": {"monitor": monitor}}


UNKNOWN: list[tuple[dict[str, Any], str | None, str]] = [
    (watching("EarlyStopping", "val_loss"), None, "EarlyStopping's monitor val_loss: .* did you mean val/loss"),
    (watching("EarlyStopping", "val/nll/anser"), None, "did you mean val/nll/answer"),
    (
        watching("ModelCheckpoint", "accuracy"),
        None,
        "ModelCheckpoint's monitor accuracy: .*expected val/loss",
    ),
    ({}, "val_loss", "--checkpoint.monitor val_loss: no such metric; did you mean val/loss"),
]


@pytest.mark.parametrize(("callback", "monitor", "message"), UNKNOWN)
def test_unknown_monitored_metric_is_refused_with_the_known_ones(
    config: dict[str, Any],
    callback: dict[str, Any],
    monitor: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config["checkpoint"] = {"monitor": monitor} if monitor else {}
    assert fit(config, trainer__callbacks=[callback] if callback else None) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, said), said
    assert "val/nll/PART" in said
    assert not Path("runs").exists()


def test_a_metric_that_needs_validation_rows_is_refused_without_any(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
    assert fit(config, data__val_fraction=0.0, trainer__callbacks=[stop]) == 2
    assert re.search(
        "monitor val/loss: never measured, because this run has no validation rows; .* train/loss",
        capsys.readouterr().err,
    )
    assert not Path("runs").exists()


def test_our_callbacks_metrics_are_checked_and_third_party_ones_are_not() -> None:
    check_monitors([EarlyStopping("train/gradient_norm"), RunHealth()])
    check_monitors([EarlyStopping("lr-AdamW"), LearningRateMonitor()])
    check_monitors([EarlyStopping("anything"), Interrupts("setup")])
    check_monitors([RunCheckpoint(monitor=None)])
    check_monitors([RunCheckpoint(monitor="val/preference_loss")], pairs=True)
    with pytest.raises(ValueError, match=r"^--checkpoint.monitor val/preference_loss: no such metric"):
        check_monitors([RunCheckpoint(monitor="val/preference_loss")])
    with pytest.raises(ValueError, match="EarlyStopping's monitor train/gradient_norm: no such metric"):
        check_monitors([EarlyStopping("train/gradient_norm")])
