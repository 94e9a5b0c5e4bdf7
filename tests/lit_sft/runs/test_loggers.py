"""Loggers of a run, by name: where they write, what they are given, and how a resumed run continues their curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from data_modules.errors import UserError
from lit_sft.runs import loggers
from lit_sft.runs.fitting import resume, train
from lit_sft.settings import logger_names
from lit_sft.settings.reading import read_settings
from tests.conftest import MODELS, alpaca_rows

Curves = dict[str, list[tuple[int, float]]]


@pytest.fixture
def config(write: Callable[..., str], tokenizer_folder: str, tmp_path: Path) -> str:
    """A run of six steps with validations at 0, 2, 4 and 6, and a point of training at every step."""
    settings: dict[str, Any] = {
        "model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}},
        "data": {
            "train": write("rows.jsonl", alpaca_rows(24)),
            "val_fraction": 0.2,
            "template": "chatml",
            "batch_size": 3,
        },
        "trainer": {
            "max_steps": 6,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "val_check_interval": 2,
        },
        "run": {"root": str(tmp_path / "runs"), "name": "tiny"},
    }
    return write("tiny.yaml", yaml.safe_dump(settings))


def of_tensorboard(folder: Path) -> Curves:
    events = EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def of_csv(folder: Path) -> Curves:
    curves: Curves = {}
    with (folder / "metrics.csv").open(encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            for name in row.keys() - {"step", "epoch"}:
                if row[name]:
                    curves.setdefault(name, []).append((int(row["step"]), float(row[name])))
    return curves


def test_csv_beside_tensorboard_has_the_same_points(config: str) -> None:
    run = train(read_settings(config, {"trainer.logger": ["TensorBoardLogger", "CSVLogger"]}))
    rows, events = of_csv(run.folder), of_tensorboard(run.folder)
    assert set(rows) == set(events) - {"epoch"}
    for name, points in rows.items():
        assert points == [(step, pytest.approx(value)) for step, value in events[name]]
    assert [step for step, _ in rows["val/loss"]] == [0, 2, 4, 6]
    assert [step for step, _ in rows["train/loss"]] == [0, 1, 2, 3, 4, 5]
    assert rows["best/val/loss"] == [(6, pytest.approx(min(value for _, value in rows["val/loss"])))]
    assert read_settings(run.config).config.run.loggers == ("tensorboard", "csv")


def test_without_loggers_nothing_is_logged(config: str) -> None:
    run = train(read_settings(config, {"run.loggers": [], "trainer.max_steps": 2}))
    assert not list(run.folder.glob("events*"))
    assert not (run.folder / "metrics.csv").exists()


def test_settings_fill_the_tab_of_tensorboard_and_the_file_beside_the_csv(config: str) -> None:
    changes = {"model.optimizer.lr": 0.002, "run.loggers": ["tensorboard", "csv"], "trainer.max_steps": 2}
    run = train(read_settings(config, {**changes, "checkpoint.monitor": "val/nll/answer"}))
    found = EventAccumulator(str(run.folder)).Reload().summary_metadata
    content = {name: plugin_data_pb2.HParamsPluginData.FromString(found[f"_hparams_/{name}"].plugin_data.content)
               for name in ("experiment", "session_start_info")}  # fmt: skip
    settings = content["session_start_info"].session_start_info.hparams
    assert settings["model.optimizer.lr"].number_value == 0.002
    assert settings["data.template"].string_value == "chatml"
    metrics = [info.name.tag for info in content["experiment"].experiment.metric_infos]
    assert metrics == ["best/val/nll/answer", "val/loss", "train/loss"]
    assert set(metrics) <= set(of_tensorboard(run.folder))
    saved = yaml.safe_load((run.folder / "hparams.yaml").read_text(encoding="utf-8"))
    assert saved["model.optimizer.lr"] == 0.002
    assert json.loads(saved["model.optimizer.betas"]) == [0.9, 0.999]
    assert not any(value is None for value in saved.values())


class FailsAt(Callback):
    """Ends a run after some steps, without saving anything."""

    step = -1

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise ArithmeticError


def test_resumed_run_draws_the_curves_of_an_uninterrupted_one(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "run.loggers": ["tensorboard", "csv"],
        "trainer.callbacks": [f"{__name__}.FailsAt"],
        "trainer.val_check_interval": 3,
    }
    whole = train(read_settings(config, changes)).folder
    monkeypatch.setattr(FailsAt, "step", 5)  # two steps after the last checkpoint
    with pytest.raises(ArithmeticError):
        train(read_settings(config, changes))
    part = whole.with_name("version_1")
    assert [step for step, _ in of_csv(part)["train/loss"]] == [0, 1, 2, 3]
    resume(part, {"trainer.callbacks": None})
    assert of_csv(part) == of_csv(whole)
    resumed, straight = of_tensorboard(part), of_tensorboard(whole)
    assert [step for step, _ in resumed["val/loss"]] == [0, 3, 6]
    # TensorBoard can only hide whole steps, and the validation at step 3 is not repeated
    assert [step for step, _ in resumed["train/loss"]] == [0, 1, 2, 3, 3, 4, 5]
    assert {name: sorted(set(points)) for name, points in resumed.items()} == straight


class _Remote(Logger):
    """Stands for W&B and MLflow: remembers what it was given."""

    made: list[Any] = []  # noqa: RUF012

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given, self.params, self.points, self.ended = given, {}, [], None
        self._experiment: Any = None
        _Remote.made.append(self)
        self.run_id = given.get("id") or given.get("run_id") or f"id-{len(_Remote.made)}"

    @property
    def experiment(self) -> Any:
        self._experiment = self
        return self

    @property
    def version(self) -> str:
        return str(self.run_id)

    name = version

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.params = dict(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.points += [(name, step) for name in metrics]

    def finish(self, exit_code: int) -> None:
        self.ended = exit_code


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(_Remote, "made", [])
    monkeypatch.setattr(logger_names, "version", lambda package: "1.0")
    for name in ("WandbLogger", "MLFlowLogger"):
        monkeypatch.setattr(loggers, name, type(name, (_Remote,), {}))
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return _Remote.made


def test_a_resumed_run_continues_its_runs_on_wandb_and_mlflow(config: str, remote: list[Any], tmp_path: Path) -> None:
    run = train(read_settings(config, {"run.loggers": ["wandb", "mlflow"], "trainer.max_steps": 2}))
    wandb, mlflow = remote
    assert wandb.given == {"project": "lit_sft", "save_dir": run.folder, "name": "tiny/version_0", "id": None}
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert mlflow.given == {
        "experiment_name": "lit_sft", "tracking_uri": uri, "run_name": "tiny/version_0", "run_id": None
    }  # fmt: skip
    assert wandb.params["model.optimizer.lr"] == mlflow.params["model.optimizer.lr"] == 5e-5
    assert [step for name, step in wandb.points if name == "val/loss"] == [0, 2]
    assert wandb.ended == 0  # or the next run of this process would be logged to it
    resume(run.folder, {"trainer.max_steps": 4})
    assert (remote[2].given["id"], remote[3].given["run_id"]) == (wandb.run_id, mlflow.run_id)
    assert remote[2].params["trainer.max_steps"] == 4
    assert remote[3].params == {}  # MLflow refuses parameters that have changed
    assert [step for name, step in remote[3].points if name == "val/loss"] == [4]


def test_environment_names_project_experiment_and_server(
    config: str, remote: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "cats")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "dogs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    train(read_settings(config, {"run.loggers": ["wandb", "mlflow"], "trainer.max_steps": 2}))
    assert remote[0].given["project"] == "cats"
    assert (remote[1].given["experiment_name"], remote[1].given["tracking_uri"]) == ("dogs", "http://localhost:5000")


def test_run_that_fails_is_ended_as_failed(config: str, remote: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailsAt, "step", 1)
    with pytest.raises(ArithmeticError):
        train(read_settings(config, {"run.loggers": ["wandb"], "trainer.callbacks": [f"{__name__}.FailsAt"]}))
    assert remote[0].ended == 1


def test_server_that_cannot_be_reached_is_reported_before_the_first_step(
    config: str, remote: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(self: Any) -> Any:
        raise ConnectionError("no such host")

    monkeypatch.setattr(loggers.MLFlowLogger, "experiment", property(fail))
    with pytest.raises(UserError, match=r"MLFlowLogger: cannot start or continue the run \(.*no such host\)"):
        train(read_settings(config, {"run.loggers": ["mlflow"]}))
    assert not (tmp_path / "runs" / "tiny").exists()


def test_logger_with_settings_of_its_own_gets_the_name_and_id_of_the_run(config: str, tmp_path: Path) -> None:
    from jsonargparse import Namespace

    from lit_sft.runs.folders import Run

    run = Run(tmp_path / "runs" / "tiny" / "version_3")
    run.folder.mkdir(parents=True)
    (run.folder / loggers.RECORD).write_text('{"WandbLogger": "abc"}', encoding="utf-8")
    given = Namespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=Namespace(project="cats", name="x"))
    (filled,) = loggers.with_own_arguments([given], run)
    assert vars(filled.init_args) == {"project": "cats", "name": "x", "id": "abc"}
    assert vars(given.init_args) == {"project": "cats", "name": "x"}
    for other in (None, True, False, Namespace(class_path="lightning.pytorch.loggers.CSVLogger")):
        assert loggers.with_own_arguments(other, run) is other
