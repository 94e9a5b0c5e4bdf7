"""A session: one use of a trainer, from settings to a run folder, trainer, model and data module."""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only

from data_modules.errors import UserError
from lit_sft.checkpoints.rules import check_checkpoint_settings
from lit_sft.console import print_line
from lit_sft.models.backbone import check_backbone
from lit_sft.models.saving import AnyData, check_checkpoint
from lit_sft.runs.folders import Run, new_run
from lit_sft.runs.lock import lock_run
from lit_sft.runs.loggers import build_loggers, finish_loggers, with_own_arguments
from lit_sft.runs.model_paths import check_model_paths
from lit_sft.runs.refused_start import NewFolders, RefusedStart
from lit_sft.runs.requests import Request, request_of
from lit_sft.settings.logger_names import check_loggers
from lit_sft.settings.options import Command, backbone_settings
from lit_sft.settings.reading import Settings, parse_settings
from lit_sft.training.accelerators import check_accelerator
from lit_sft.training.module import LitCausalLM
from lit_sft.training.precision import check_precision
from lit_sft.training.steps import check_length
from lit_sft.training.trainer import build_trainer

_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
}
"""Settings of the trainer and their least values; Lightning accepts others or divides by them."""

_RUN_FOLDER = "LIT_SFT_RUN_FOLDER"
"""Environment variable with the run folder, set by the first process of a node for the others."""


@dataclass
class Session:
    """One use of a trainer: to fit, validate, test or predict.

    Creating it checks the settings, seeds everything, and takes the run folder or creates a new one.

    Attributes:
        command: What to do.
        request: What the user asked for.
        settings: Settings, read.
        cleanup: Contexts to exit when the session ends, however it ends.

    Raises:
        UserError: If a setting cannot work.
    """

    command: Command
    request: Request
    settings: Settings
    cleanup: contextlib.ExitStack
    run: Run = field(init=False)
    trainer: Trainer = field(init=False)
    model: LitCausalLM = field(init=False)
    data: AnyData = field(init=False)
    start: RefusedStart | None = field(init=False, default=None)
    """Cleans up the folder of a new run if it fails to start."""

    def __post_init__(self) -> None:
        check_model_paths(self.settings)
        check_settings(self.config, self.command, names_checkpoint=self.request.names_checkpoint)
        if self.config.seed_everything is not False:  # runs of earlier versions may have none
            seed_everything(self.config.seed_everything, workers=True)
        self.run = self._run_folder()

    @property
    def config(self) -> Namespace:
        """All settings, by section."""
        return self.settings.config

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to load, if any."""
        return Path(self.config.ckpt_path) if self.config.ckpt_path else None

    @property
    def is_trial(self) -> bool:
        """Whether this is only a trial of the training loop (`fast_dev_run`)."""
        return self.command == "fit" and bool(self.config.trainer.fast_dev_run)

    def build(self, callbacks: list[Callback], last: list[Callback]) -> None:
        """Build the model, the data module and the trainer.

        Args:
            callbacks: Added to the callbacks of the settings.
            last: Callbacks to run after all others.
        """
        built = self.settings.instantiated(self._with_continued_loggers())
        self.model, self.data = built.model, built.data
        built.checkpoint.dirpath = str(self.run.checkpoints)
        changes: dict[str, Any] = {"default_root_dir": str(self.run.folder)}
        if self.command != "fit":
            changes["logger"] = False
        elif self.config.trainer.logger in (None, True):
            changes["logger"] = build_loggers(self.config.run.loggers, self.run)
        last = [built.checkpoint, *last]
        self.trainer = build_trainer(built.trainer, callbacks=callbacks, last=last, **changes)
        self.cleanup.push(partial(finish_loggers, self.trainer.loggers))
        if self.start:
            self.start.watch(self.trainer)

    def run_trainer(self) -> None:
        """Run the trainer's method of the same name as the command."""
        method = getattr(self.trainer, self.command)
        names = inspect.signature(method).parameters.keys() - {"model", "datamodule"}
        arguments = {name: self.config[name] for name in names if name in self.config}
        if "verbose" in arguments:
            arguments["verbose"] = False  # a shorter table is printed at the end
        path = self.checkpoint
        self.model.checkpoint = path if path and path.is_file() else None
        # checkpoints are never unpickled, wherever they come from
        method(**{**arguments, "model": self.model, "datamodule": self.data, "weights_only": True})

    def print_next_steps(self, *commands: str) -> None:
        """Print where the curves are and what to do next with the run.

        Args:
            *commands: With their options, such as `predict --data.predict FILE`.
        """
        if any(self.run.folder.glob("events.out.tfevents*")):
            print_line(f"curves  tensorboard --logdir {self.run.folder.parent.parent}")
        if not self.run.config.is_file():
            return  # a test of untrained weights, which no other command can open
        for label, command in zip(("next", "or"), commands, strict=False):
            verb, _, options = command.partition(" ")
            print_line(f"{label:8}python -m lit_sft {verb} {self.run.folder} {options}".rstrip())

    def _with_continued_loggers(self) -> Namespace:
        """The settings, with the name and the id of the run in loggers that `trainer.logger` names."""
        config = self.config.clone()
        if self.command == "fit":
            config.trainer.logger = with_own_arguments(config.trainer.logger, self.run)
        return config

    def _run_folder(self) -> Run:
        settings, checkpoint = self.config.run, self.checkpoint
        if self.command != "fit" and checkpoint and checkpoint.parent.name == "checkpoints":
            return Run(checkpoint.parent.parent)
        files = self.config.config or []
        name = settings.name or (_name_of(Path(str(files[0]))) if files else "run")
        if rank_zero_only.rank:  # type: ignore[attr-defined]
            # only the first process writes; under torchrun or SLURM this one need not know the folder
            return Run(Path(os.environ.get(_RUN_FOLDER, f"{settings.root}/{name}/version_0")))
        run = self._new_run(settings.root, name)
        os.environ[_RUN_FOLDER] = str(run.folder)
        return run

    def _new_run(self, root: str, name: str) -> Run:
        if self.is_trial:
            if self.request.is_resumed:
                raise UserError("--trainer.fast_dev_run: only for new runs; leave out --resume.")
            return Run(Path(self.cleanup.enter_context(tempfile.TemporaryDirectory())))
        if self.request.is_resumed:
            assert self.request.opened is not None
            return self.request.opened
        above = NewFolders(Path(root) / name)
        run = new_run(root, name)
        self.start = self.cleanup.enter_context(RefusedStart(run, above, trains=self.command == "fit"))
        self.cleanup.enter_context(lock_run(run.folder))
        return run


def open_session(command: Command, arguments: list[str], cleanup: contextlib.ExitStack) -> Session:
    """Open a session from command-line options.

    Args:
        command: The command's name.
        arguments: Its arguments: a run and changes to its settings, or options as `fit` takes them.
        cleanup: Contexts to exit when the session ends, however it ends.

    Raises:
        UserError: If the run does not exist or a setting is wrong.
    """
    request = request_of(command, arguments, cleanup)
    run_config = request.opened.config if request.opened else None
    settings = parse_settings(request.arguments, command=command, run_config=run_config, reads_trainer_classes=True)
    return Session(command, request, settings, cleanup)


def check_settings(config: Namespace, command: Command, *, names_checkpoint: bool = False) -> None:
    """Reject settings that cannot work before any file is written.

    Args:
        config: All settings, by section.
        command: The command that uses them.
        names_checkpoint: Whether the user gave `--ckpt_path`.

    Raises:
        UserError: If there is one.
    """
    trainer = config.trainer
    if command == "fit" and isinstance(config.seed_everything, bool):
        seed = str(config.seed_everything).lower()
        raise UserError(f"--seed_everything {seed}: expected a whole number; without one, a run cannot be repeated.")
    check_length(trainer.max_epochs, trainer.max_steps)
    check_backbone(backbone_settings(config.model.backbone))
    check_accelerator(trainer.accelerator, trainer.devices, trainer.strategy)
    on_cpu = trainer.accelerator == "cpu" or not torch.cuda.is_available()
    check_precision(str(trainer.precision), on_cpu=on_cpu)
    for name, least in _LEAST.items():
        if trainer[name] is not None and trainer[name] < least:
            raise UserError(f"--trainer.{name} {trainer[name]}: expected {least} or more.")
    if config.answers < 0:
        raise UserError(f"--answers {config.answers}: expected 0 or more.")
    check_checkpoint(config.ckpt_path, is_named=names_checkpoint, to_train=command == "fit")
    if command == "fit":
        check_checkpoint_settings(vars(config.checkpoint))
        check_loggers(config.run.loggers, trainer.logger)


def _name_of(config: Path) -> str:
    """The name of a config file; for a run's config, the name of that run."""
    return config.resolve().parent.parent.name if config.parent.name.startswith("version_") else config.stem
