"""The loggers of a run: their folder, name and settings come from the run, and a resumed run continues its curves."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials
from lit_sft.files import error_line, read_json, write_json, write_text
from lit_sft.runs.folders import Run
from lit_sft.settings.logger_names import LoggerName

RECORD = "loggers.json"
"""The ids of the run on W&B and MLflow, by class of the logger."""

_PROJECT = "lit_sft"
"""Project on W&B and experiment on MLflow, unless the environment names another."""

_OWN: dict[str, tuple[str, str]] = {"WandbLogger": ("name", "id"), "MLFlowLogger": ("run_name", "run_id")}
"""Arguments that take the name and the id of a run, by class of the logger."""

_SECTIONS = ("seed_everything", "data_module", "data", "model", "trainer", "checkpoint", "run")


def build_loggers(names: Sequence[LoggerName], run: Run) -> list[Logger]:
    """Build the loggers of a run by name."""
    return [_build(name, run) for name in names]


def _build(name: LoggerName, run: Run) -> Logger:
    root = run.folder.parent.parent
    if name == "csv":
        return RunCSVLogger(root, name=run.folder.parent.name, version=run.folder.name)
    if name == "wandb":
        project = os.environ.get("WANDB_PROJECT") or _PROJECT
        return WandbLogger(project=project, save_dir=run.folder, **_own_arguments("WandbLogger", run))
    if name == "mlflow":
        return MLFlowLogger(
            experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}",
            **_own_arguments("MLFlowLogger", run),
        )
    return TensorBoardLogger(root, name=run.folder.parent.name, version=run.folder.name)


def _own_arguments(kind: str, run: Run) -> dict[str, Any]:
    """The name of a run for W&B or MLflow, and its id there, if it has one already."""
    name, identifier = _OWN[kind]
    found = (read_json(run.folder / RECORD) or {}).get(kind)
    return {name: f"{run.folder.parent.name}/{run.folder.name}", identifier: found}


def with_own_arguments(logger: Any, run: Run) -> Any:
    """The setting `trainer.logger` with the name and the id of the run, where it sets neither.

    Args:
        logger: The setting: one logger of Lightning with settings, several, or anything else.
        run: The run.
    """
    if isinstance(logger, list):
        return [with_own_arguments(each, run) for each in logger]
    kind = logger.get("class_path", "").rpartition(".")[2] if isinstance(logger, Namespace) else ""
    if kind not in _OWN:
        return logger
    filled: Namespace = logger.clone()
    for name, value in _own_arguments(kind, run).items():
        if filled.init_args.get(name) is None:
            filled.init_args[name] = value
    return filled


def connect_loggers(loggers: Sequence[Any], run: Run) -> None:
    """Start or continue the run on W&B and MLflow.

    Raises:
        UserError: If that fails.
    """
    for logger in loggers:
        try:
            _ = logger.experiment if _has_id(logger) else None
        except Exception as error:  # of their packages or servers
            file = run.folder / RECORD
            fix = f"; to start a new one there, remove {file}" if file.exists() else ""
            raise UserError(
                f"{type(logger).__name__}: cannot start or continue the run ({error_line(error)}). Check the address "
                f"and your login{fix}."
            ) from error


class RunCSVLogger(CSVLogger):
    """Lightning's CSVLogger, in a folder with other files, where a resumed run continues `metrics.csv`."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment


class _Writer(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.metrics_keys = list(self._rows()[0])

    def _check_log_dir_exists(self) -> None:
        """Do nothing. Lightning would warn that the folder is not empty, and remove the file."""

    def _rows(self) -> tuple[Sequence[str], list[dict[str, str]]]:
        """The columns and the rows of an existing file."""
        file = Path(self.metrics_file_path)
        if not file.is_file():
            return [], []
        with file.open(newline="", encoding="utf-8") as opened:
            reader = csv.DictReader(opened)
            rows = list(reader)
        return reader.fieldnames or [], rows

    def resume_at(self, step: int) -> None:
        """Remove the rows of steps that are trained again, after `step` optimiser steps."""
        columns, rows = self._rows()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        # validations are numbered by the steps before them; Lightning numbers training steps from 0
        writer.writerows(row for row in rows if int(row["step"]) < step + (not row.get("train/lr")))
        if rows:
            write_text(Path(self.metrics_file_path), text.getvalue())


class RunLogs(Callback):
    """Logs the settings of the run and the score of its best checkpoint, and remembers its ids on W&B and MLflow.

    Args:
        run: The run.
        settings: All settings of the run, by section.
    """

    def __init__(self, run: Run, settings: Namespace) -> None:
        self.run, self.settings = run, flat_settings(settings)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the settings, once a resumed run's checkpoint is accepted."""
        if not trainer.is_global_zero:
            return
        known = read_json(self.run.folder / RECORD) or {}
        ids = {**known, **{type(each).__name__: each.version for each in trainer.loggers if _has_id(each)}}
        if ids != known:
            write_json(self.run.folder / RECORD, ids)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _hide_later(logger, trainer.global_step)
                self._fill_tab(logger, [_best_of(trainer.checkpoint_callback), "val/loss", "train/loss"])
            elif isinstance(logger, RunCSVLogger):
                logger.experiment.resume_at(trainer.global_step)
                logger.log_hyperparams(self.settings)
            elif not isinstance(logger, MLFlowLogger) or known.get("MLFlowLogger") != logger.run_id:
                logger.log_hyperparams(self.settings)  # MLflow refuses parameters that have changed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Number the points of training by the steps taken before them; Lightning counts one more after resuming."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write what the loggers hold, so that a run resumed from this checkpoint lacks no point."""
        for logger in trainer.loggers:
            logger.save()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the score of the best checkpoint."""
        callback: Any = trainer.checkpoint_callback
        if (score := callback.best_model_score) is not None:
            for logger in trainer.loggers:
                logger.log_metrics({_best_of(callback): float(score)}, step=trainer.global_step)

    def _fill_tab(self, logger: TensorBoardLogger, metrics: Sequence[str]) -> None:
        """Fill TensorBoard's tab HPARAMS. Its columns of metrics show the last values of curves with these names."""
        from torch.utils.tensorboard.summary import hparams

        writer = logger.experiment._get_file_writer()
        for summary in hparams(self.settings, dict.fromkeys(metrics, 0.0)):  # type: ignore[no-untyped-call]
            writer.add_summary(summary)


def _hide_later(logger: TensorBoardLogger, step: int) -> None:
    """Hide what an interrupted run logged after `step` optimiser steps; a validation at `step` is not repeated."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    if step:
        writer = logger.experiment._get_file_writer()
        writer.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))


def _has_id(logger: Logger) -> bool:
    return type(logger).__name__ in _OWN


def _best_of(callback: Any) -> str:
    """The curve of the score of the best checkpoint."""
    return f"best/{callback.monitor}"


def finish_loggers(
    loggers: Sequence[Logger],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """End the run on W&B: Lightning does not, and the next run of this process would be logged to it too."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            with contextlib.suppress(Exception):  # the run is over, whatever its server says
                logger.experiment.finish(exit_code=int(kind is not None))


def flat_settings(config: Namespace) -> dict[str, Any]:
    """The settings of a run by dotted name, such as `model.optimizer.lr`; those that are not set are left out.

    Args:
        config: All settings, by section.

    Returns:
        Numbers, texts and switches; lists and classes as JSON.
    """
    found: dict[str, Any] = {}
    for name in _SECTIONS:
        _flatten(name, _plain(config.get(name)), found)
    return found


def _flatten(name: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, dict) and "class_path" not in value:
        for key, part in value.items():
            _flatten(f"{name}.{key}", part, found)
    elif value not in (None, [], {}):
        found[name] = value if isinstance(value, (bool, int, float, str)) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, (Namespace, Mapping)):
        parts = vars(value) if isinstance(value, Namespace) else value
        return {str(key): _plain(part) for key, part in parts.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return without_credentials(str(value))
