"""Trains in a run folder, then exports the best model: `python -m lit_sft fit`, or `train` from Python."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from data_modules.text_data_module import TextDataModule
from lit_sft.console import console, print_line, quiet
from lit_sft.files import write_json
from lit_sft.models.backbone import build_backbone
from lit_sft.models.saving import AnyData, export_model, load_weights, read_checkpoint
from lit_sft.runs.data_report import print_ledger
from lit_sft.runs.data_sources import SOURCES, sources_of
from lit_sft.runs.folders import Run
from lit_sft.runs.loggers import RunLogs, connect_loggers
from lit_sft.runs.metrics_table import print_metrics
from lit_sft.runs.model_card import CardSource
from lit_sft.runs.requests import Request
from lit_sft.runs.session import Session, open_session
from lit_sft.runs.text_report import print_text_ledger
from lit_sft.settings.reading import Settings, as_options
from lit_sft.training.ending import what_ended
from lit_sft.training.monitors import check_monitors
from lit_sft.training.plan import PlanReport
from lit_sft.training.preemption import RunKeeper


def train(settings: Settings) -> Run:
    """Train in a new run folder, as `python -m lit_sft fit --config FILE` does.

    Args:
        settings: From `read_settings`.

    Returns:
        The run, with its checkpoints and the exported model.

    Raises:
        UserError: If a setting or the data is wrong.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(quiet("fit"))
        session = Session("fit", Request([]), settings, cleanup)
        fit(session)
        return session.run


def resume(run: str | Path, changes: Mapping[str, Any] | None = None) -> Run:
    """Continue an interrupted run from its newest intact checkpoint, as `python -m lit_sft fit --resume RUN` does.

    Args:
        run: The run folder.
        changes: Settings by dotted name that may change, such as a higher `trainer.max_epochs`.

    Raises:
        UserError: If there is no such run, or the settings or data have changed.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(quiet("fit"))
        session = open_session("fit", ["--resume", str(run), *as_options(changes or {})], cleanup)
        fit(session)
        return session.run


def fit(session: Session) -> None:
    """Train in the session's run folder, then export the best model and report."""
    config = session.config
    added: list[Callback] = [PlanReport(print_line, session.settings.length.unused)]
    record: list[Callback] = []
    if not session.is_trial:
        added.insert(0, RunKeeper(session.run.checkpoints, config.run.checkpoint_minutes))
        settings, is_resumed = session.settings, session.request.is_resumed
        record = [RunRecord(session.run, settings, is_resumed=is_resumed), RunLogs(session.run, settings.config)]
    session.build(added, record)
    check_monitors(session.trainer.callbacks, pairs=session.model.trains_on_pairs)  # type: ignore[attr-defined]
    connect_loggers(session.trainer.loggers, session.run)
    session.model.allow_changes = config.run.allow_changes
    # now: the run may overwrite it
    before = _steps_of(session.checkpoint) if session.request.is_resumed and session.checkpoint else None
    session.run_trainer()
    if session.trainer.is_global_zero:
        _report(session, before)


class RunRecord(Callback):
    """Writes config.yaml and the ledger to the run folder, and prints the ledger.

    Args:
        run: The run.
        settings: Written to config.yaml.
        is_resumed: Whether the run is resumed; its files are then replaced only after its checkpoint is accepted.
    """

    def __init__(self, run: Run, settings: Settings, *, is_resumed: bool) -> None:
        self.run, self.settings, self.is_resumed = run, settings, is_resumed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the record of a new run."""
        data: AnyData = trainer.datamodule  # type: ignore[attr-defined]
        if not self.is_resumed and trainer.is_global_zero:
            self._write(data)
        trainer.strategy.barrier("run record")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record of a resumed run."""
        if self.is_resumed and trainer.is_global_zero:
            self._write(trainer.datamodule)  # type: ignore[attr-defined]

    def _write(self, data: AnyData) -> None:
        config = self.settings.config.clone()
        # options that apply to this command only
        config.ckpt_path, config.run.allow_changes, config.run.allow_code = None, False, None
        config.model.backbone.trust_remote_code = False
        self.settings.parser.save(config, self.run.config, skip_none=False, overwrite=True, multifile=False)
        write_json(self.run.folder / "ledger.json", data.ledgers)
        write_json(self.run.folder / SOURCES, sources_of(config.data))
        self.run.note_start()
        if isinstance(data, TextDataModule):
            print_text_ledger(console, data)
        else:
            print_ledger(console, data)
        print_line(f"run folder: {self.run.folder}")


def _report(session: Session, steps_before: int | None) -> None:
    """Export the best model, write fit.json, and report the outcome and what to do next."""
    step = session.trainer.global_step
    if session.is_trial:
        print_line(f"fast_dev_run: training and validation work (step {step}); nothing was saved")
        return
    model, run = session.model, session.run
    backbone, choice = _whole_backbone(session), run.choice()
    found = load_weights(backbone, choice.path, allow_changes=model.allow_changes)
    last, best = model.metrics.get("val", {}), found if choice.is_best else {}
    metrics = {"before": model.metrics_before, "best": best, "last": last if last.get("step") else {}}
    write_json(run.folder / "fit.json", {**metrics, "steps": step})
    card = CardSource(run, session.settings, choice.path, session.data).card
    export_model(backbone, run.model, session.data, card=card)
    _print_validations(metrics)
    ending = what_ended(session.trainer)
    if steps_before == step:
        print_line(f"nothing left to do after step {step}{f': {ending}' if ending else ''}")
    elif ending and ending.is_early:
        print_line(f"stopped early at step {step}: {ending}")
    print_line(f"model   {run.model}  (Hugging Face format, from {choice})")
    has_test = bool(session.data.stores.get("test"))
    if isinstance(session.data, TextDataModule):
        session.print_next_steps(*["test"] * has_test)
    else:
        session.print_next_steps("test" if has_test else "predict --data.predict FILE", "chat")


def _print_validations(metrics: dict[str, dict[str, Any]]) -> None:
    distinct = metrics if metrics["last"] != metrics["best"] else {n: metrics[n] for n in ("before", "best")}
    columns = {f"{name} (step {row['step']:.0f})": row for name, row in distinct.items() if row}
    if columns:
        print_metrics(console, "validation", columns)


def _whole_backbone(session: Session) -> nn.Module:
    """The model to load the best weights into: a new one if the trained model is sharded."""
    if not isinstance(session.trainer.strategy, ModelParallelStrategy):
        return session.model.backbone
    torch.manual_seed(session.data.seed)  # random weights depend on it
    return build_backbone(session.model.backbone_settings, session.data.tokenizer)


def _steps_of(checkpoint: Path) -> int:
    return int(read_checkpoint(checkpoint, map_location="meta", mmap=True)["global_step"])
