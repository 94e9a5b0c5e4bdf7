"""Shared by fit, validate, test and predict: turns settings into a run folder, trainer, model and data module."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from lit_sft.checkpoints.atomic_io import AtomicCheckpointIO
from lit_sft.checkpoints.rules import check_checkpoint_settings
from lit_sft.console import print_line, quieten
from lit_sft.failures import message_of
from lit_sft.models.backbone import check_backbone
from lit_sft.models.saving import check_checkpoint
from lit_sft.runs.folders import Run, new_run
from lit_sft.runs.lock import lock_run
from lit_sft.runs.refused_start import NewFolders, RefusedStart
from lit_sft.runs.requests import Request, request_of
from lit_sft.settings.options import Command, backbone_settings
from lit_sft.settings.reading import Settings, parse_settings
from lit_sft.training.accelerators import check_accelerator
from lit_sft.training.module import LitCausalLM
from lit_sft.training.precision import check_precision
from lit_sft.training.progress_lines import lines_without_terminal

_RUN_FOLDER = "LIT_SFT_RUN_FOLDER"
"""Environment variable with the run folder, set by the first process of a node for the others."""


@dataclass
class Session:
    """One training command, from its settings to its trainer.

    Attributes:
        command: The command's name.
        request: What the user asked for.
        settings: Settings, read and checked.
        held: Contexts to exit when the command ends, however it ends.
    """

    command: Command
    request: Request
    settings: Settings
    held: contextlib.ExitStack
    run: Run = field(init=False)
    trainer: Trainer = field(init=False)
    model: LitCausalLM = field(init=False)
    data: SFTDataModule = field(init=False)
    start: RefusedStart | None = field(init=False, default=None)
    """Cleans up the folder of a new run if it fails to start."""

    def __post_init__(self) -> None:
        self.config: Namespace = self.settings.config
        if self.config.seed_everything is not False:
            chosen = None if self.config.seed_everything is True else self.config.seed_everything
            self.config.seed_everything = seed_everything(chosen, workers=True)
        _check(self.config, self.command, self.request)
        self.run = self._run_folder()

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
        made = self.settings.instantiated()
        self.model, self.data = made.model, made.data
        made.checkpoint.dirpath = str(self.run.checkpoints)
        given = self.config.trainer
        added: dict[str, Any] = {"default_root_dir": str(self.run.folder)}
        if not _is_sharded(given.strategy):
            added["plugins"] = [*_as_list(made.trainer.plugins), AtomicCheckpointIO()]
        if self.command != "fit":
            added["logger"] = False
        elif given.logger in (None, True):
            parent = self.run.folder.parent
            added["logger"] = TensorBoardLogger(parent.parent, name=parent.name, version=self.run.folder.name)
        own = [*_as_list(made.trainer.callbacks), *callbacks]
        shown = lines_without_terminal(own, given.enable_progress_bar, print_line)
        added["callbacks"] = [*shown, made.checkpoint, *last]
        self.trainer = Trainer(**{**made.trainer, **added})
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
        print_line(f"curves  tensorboard --logdir {self.run.folder.parent.parent}")
        for label, command in zip(("next", "or"), commands, strict=False):
            verb, _, options = command.partition(" ")
            print_line(f"{label:8}python -m lit_sft {verb} {self.run.folder} {options}".rstrip())

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
            return Run(Path(self.held.enter_context(tempfile.TemporaryDirectory())))
        if self.request.is_resumed:
            assert self.request.opened is not None
            return self.request.opened
        above = NewFolders(Path(root) / name)
        run = new_run(root, name)
        self.start = self.held.enter_context(RefusedStart(run, above, trains=self.command == "fit"))
        self.held.enter_context(lock_run(run.folder))
        return run


def run_command(argv: list[str], command: Callable[[Session], None]) -> None:
    """Read the settings of a training command and run it.

    Args:
        argv: The command's name and its arguments.
        command: What it does.

    Raises:
        UserError: If a setting is wrong, or on a failure that the user can fix.
    """
    name = cast(Command, argv[0])
    quieten(name)
    with contextlib.ExitStack() as held:
        request = request_of(name, argv[1:], held)
        sys.argv[1:] = [name, *request.arguments]  # Lightning starts the other processes of a node with these
        try:
            settings = parse_settings(
                request.arguments,
                command=name,
                run_config=request.opened.config if request.opened else None,
                makes_trainer=True,
            )
            command(Session(name, request, settings, held))
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            if (message := message_of(error)) is None:
                raise
            raise UserError(message) from error


def _check(config: Namespace, command: Command, request: Request) -> None:
    """Reject settings that cannot work before any file is written."""
    trainer = config.trainer
    for name in ("max_epochs", "max_steps"):
        if trainer[name] is not None and trainer[name] < 1 and trainer[name] != -1:
            raise UserError(f"--trainer.{name} {trainer[name]}: expected 1 or more, or -1 for no limit.")
    if trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
        raise UserError(
            "run length not set: give `--trainer.max_epochs` or `--trainer.max_steps`; the schedule depends on it."
        )
    check_backbone(backbone_settings(config.model.backbone))
    check_accelerator(trainer.accelerator, trainer.devices, trainer.strategy)
    on_cpu = trainer.accelerator == "cpu" or not torch.cuda.is_available()
    check_precision(str(trainer.precision), on_cpu=on_cpu and not torch.backends.mps.is_available())
    if trainer.accumulate_grad_batches < 1:
        raise UserError(f"--trainer.accumulate_grad_batches {trainer.accumulate_grad_batches}: expected 1 or more.")
    check_checkpoint(config.ckpt_path, is_named=request.names_checkpoint, to_train=command == "fit")
    if command == "fit":
        check_checkpoint_settings(vars(config.checkpoint))


def _name_of(config: Path) -> str:
    """The name of a config file; for a run's config, the name of that run."""
    return config.resolve().parent.parent.name if config.parent.name.startswith("version_") else config.stem


def _as_list(value: Any) -> list[Any]:
    """A Lightning setting that may be one thing, several or none, as a list."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _is_sharded(strategy: object) -> bool:
    """Whether a strategy writes checkpoints in its own format."""
    return any(name in str(strategy).lower() for name in ("fsdp", "deepspeed"))
