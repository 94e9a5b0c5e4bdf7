"""The command line of fit, validate, test and predict: YAML, overrides, run folders, and the report at the end."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import nn
from transformers.utils.logging import disable_progress_bar

from data_modules.sft_data_module import SFTDataModule
from lit_sft.accelerators import check_accelerator
from lit_sft.arguments import check_run_first, root_of
from lit_sft.backbone import BackboneSettings, build_backbone, check_backbone, context_length
from lit_sft.checkpoint_io import AtomicCheckpointIO
from lit_sft.checkpoint_settings import check_checkpoint_settings
from lit_sft.checkpoints import export_model, load_weights, read_checkpoint
from lit_sft.console import say_on
from lit_sft.data_report import print_ledger
from lit_sft.ending import what_ended
from lit_sft.failures import message_of
from lit_sft.files import write_json
from lit_sft.generation import GenerationSettings
from lit_sft.module import LitCausalLM
from lit_sft.monitors import check_monitors
from lit_sft.optimization import OptimizerSettings
from lit_sft.precision import check_precision
from lit_sft.predictions import PredictionWriter, leave_training_data
from lit_sft.progress_lines import lines_without_terminal
from lit_sft.refused_start import NewFolders, RefusedStart
from lit_sft.results import TestFiles, print_figures, rows_tested, write_test
from lit_sft.run_checkpoint import RunCheckpoint, is_measured_in_training
from lit_sft.run_keeper import RunKeeper
from lit_sft.run_length import USUAL_EPOCHS, RunLength, run_length
from lit_sft.run_lock import lock_run
from lit_sft.run_plan import PlanReport
from lit_sft.runs import Run, RunSettings, find_resumable, find_run, new_run, paths_of
from lit_sft.settings.errors import in_one_line, is_from_parser
from lit_sft.settings.parser import SettingsParser, Source
from lit_sft.settings.trust import allowed_code, unread_slots

console = Console()

_RUN_FOLDER = "LIT_SFT_RUN_FOLDER"
"""Environment variable by which the first process of a node tells the others which run folder it made."""

_TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": USUAL_EPOCHS,
    "accelerator": "auto",
    "devices": 1,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    # every validation batch before the first step: the "before" of every comparison
    "num_sanity_val_steps": -1,
    # the data module shares the data out itself, and without repeating any
    "use_distributed_sampler": False,
    "enable_model_summary": False,
}

_CHECKPOINT_DEFAULTS: dict[str, Any] = {
    "checkpoint.monitor": "val/loss",
    "checkpoint.filename": "best",
    "checkpoint.enable_version_counter": False,
    "checkpoint.auto_insert_metric_name": False,
}


def main(argv: list[str]) -> None:
    """Run one of the four commands.

    Args:
        argv: The command and its arguments.
    """
    _quieten(argv[0])
    with contextlib.ExitStack() as LitCLI.at_end:
        _run(argv[0], argv[1:])


def _run(command: str, arguments: list[str]) -> None:
    LitCLI.command, LitCLI.resumed = command, None
    opened: Run | None = None
    if command == "fit" and any(map(_asks_to_resume, arguments)):
        arguments = _resuming(arguments)
    if command != "fit" and not names_config(arguments):
        opened, checkpoint, rest = take_run(command, arguments)
        LitCLI.at_end.enter_context(paths_of(opened))
        arguments = ["--config", str(opened.config), "--ckpt_path", str(checkpoint), *rest]
    try:
        LitCLI([command, *arguments], opened=opened or LitCLI.resumed)
    except (MisconfigurationException, RuntimeError) as error:
        if (message := message_of(error)) is None:
            raise
        raise ValueError(message) from error


class LitCLI(LightningCLI):
    """LightningCLI with run folders, links between model and data, and a report at the end."""

    command: ClassVar[str] = "fit"
    resumed: ClassVar[Run | None] = None
    at_end: ClassVar[contextlib.ExitStack] = contextlib.ExitStack()
    """What is left to do when the command ends, however it ends."""
    run: Run
    trainer: Trainer
    model: LitCausalLM
    datamodule: SFTDataModule
    length: RunLength
    start: RefusedStart | None = None
    """Of a new run, to leave nothing behind if it is refused."""
    predictions: PredictionWriter
    steps_before: int | None
    """Steps of the checkpoint that `fit` continues from."""

    def __init__(self, arguments: list[str], *, run: bool = True, opened: Run | None = None) -> None:
        unread = unread_slots(LitCLI.command if run else None, arguments)
        source = Source(opened.config if opened else None, allowed_code(arguments), unread)
        # Lightning starts the other processes of a node with these arguments
        sys.argv[1:] = self.arguments = arguments
        super().__init__(
            LitCausalLM,
            SFTDataModule,
            save_config_callback=RunRecord,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=_TRAINER_DEFAULTS,
            seed_everything_default=42,
            parser_class=SettingsParser,
            parser_kwargs={"prog": "python -m lit_sft", "source": source, LitCLI.command: {"source": source}},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the one in use: building the parsers of all four takes a second."""
        return {LitCLI.command: LightningCLI.subcommands()[LitCLI.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunSettings, "run")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults(_CHECKPOINT_DEFAULTS)
        parser.add_argument(
            "--resume", metavar="[RUN]", help="Continue a run (the newest one) from its newest whole checkpoint."
        )
        if LitCLI.command == "predict":
            parser.add_argument(
                "--output", metavar="FILE", help="Where answers go. Default: a new file in the run folder."
            )
        parser.add_argument("--answers", type=int, default=200, help="Rows that `test` answers and scores, at most.")
        parser.link_arguments("model.backbone", "data.tokenizer", compute_fn=_tokenizer_name)
        parser.link_arguments("model.backbone", "data.context_length", compute_fn=_context_length)
        parser.link_arguments("model.generation.max_new_tokens", "data.answer_length")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and let the limit of the run's length that was given last hold."""
        super().parse_arguments(parser, args)
        trainer = self.config.get(str(self.config.get("subcommand")), self.config).trainer
        self.length = run_length(trainer.max_epochs, trainer.max_steps, self.arguments)
        trainer.max_epochs, trainer.max_steps = self.length.max_epochs, self.length.max_steps

    def _parse_ckpt_path(self) -> None:
        """Checkpoints hold weights, not settings: those are in the run's config.yaml."""

    def before_instantiate_classes(self) -> None:
        self._check_nulls()
        _check_length(self._get(self.config, "trainer"))
        check_backbone(_settings(self._get(self.config, "model").backbone))  # before the data is encoded
        trainer = self._get(self.config, "trainer")
        check_accelerator(trainer.accelerator, trainer.devices, trainer.strategy)
        on_cpu = trainer.accelerator == "cpu" or not torch.cuda.is_available()
        check_precision(str(trainer.precision), on_cpu=on_cpu and not torch.backends.mps.is_available())
        if trainer.accumulate_grad_batches < 1:
            raise ValueError(
                f"--trainer.accumulate_grad_batches {trainer.accumulate_grad_batches}: expected 1 or more."
            )
        _check_checkpoint(self._get(self.config, "ckpt_path"), to_train=self.subcommand == "fit")
        if self.subcommand == "fit":
            check_checkpoint_settings(vars(self._get(self.config, "checkpoint")))
        self.run = self._run_folder()
        if self.subcommand == "predict":
            leave_training_data(self._get(self.config, "data"), self.run.folder)

    def _check_nulls(self) -> None:
        """jsonargparse takes null for a setting of any type."""
        owners = {"trainer": Trainer, "data": SFTDataModule, "checkpoint": ModelCheckpoint, "run": RunSettings}
        nested = {"backbone": BackboneSettings, "optimizer": OptimizerSettings, "generation": GenerationSettings}
        for name, owner in {**owners, **{f"model.{part}": settings for part, settings in nested.items()}}.items():
            values = self._get(self.config, name.partition(".")[0])
            _refuse_nulls(name, owner, values.get(name.partition(".")[2]) if "." in name else values)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except BaseException as error:
            if isinstance(error, ValueError) and is_from_parser(str(error)):
                raise ValueError(in_one_line(str(error))) from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        checkpoint = self._get(self.config_init, "checkpoint")
        checkpoint.dirpath = str(self.run.checkpoints)
        kwargs["default_root_dir"] = str(self.run.folder)
        if not _is_sharded(config.strategy):
            kwargs["plugins"] = [*_as_list(config.plugins), AtomicCheckpointIO()]
        if self.subcommand != "fit":
            kwargs["logger"] = False
        elif config.logger in (None, True):
            parent = self.run.folder.parent
            kwargs["logger"] = TensorBoardLogger(parent.parent, name=parent.name, version=self.run.folder.name)
        callbacks = _as_list(config.callbacks)
        if self.subcommand == "fit":
            minutes = self._get(self.config_init, "run").checkpoint_minutes
            callbacks += [] if self._is_trial() else [RunKeeper(self.run.checkpoints, minutes)]
            callbacks += [PlanReport(say, self.length.unused)]
        if self.subcommand == "predict":
            output = self._get(self.config_init, "output")
            self.predictions = PredictionWriter(self.run.folder, output and Path(output))
            callbacks += [self.predictions]
        kwargs["callbacks"] = lines_without_terminal(callbacks, config.enable_progress_bar, say)
        trainer = super().instantiate_trainer(**kwargs)
        if self.start:
            self.start.watch(trainer)
        return trainer

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        # a shorter table is printed at the end; and checkpoints are never unpickled, wherever they come from
        quiet = {"verbose": False} if "verbose" in kwargs else {}
        checkpoint = Path(kwargs.get("ckpt_path") or "")
        self.model.checkpoint = checkpoint if checkpoint.is_file() else None
        return {**kwargs, **quiet, "weights_only": True}

    def before_fit(self) -> None:
        check_monitors(self.trainer.callbacks)  # type: ignore[attr-defined]
        self.model.allow_changes = self._get(self.config, "run").allow_changes
        checkpoint = self._get(self.config, "ckpt_path")  # now: the run may overwrite it
        self.steps_before = _steps_of(Path(checkpoint)) if LitCLI.resumed else None

    def after_fit(self) -> None:
        if not self.trainer.is_global_zero:
            return
        if self._is_trial():
            say(f"fast_dev_run: training and validation work (step {self.trainer.global_step}); nothing is kept")
            return
        last = self.model.figures.get("val", {})
        backbone = self._whole_backbone()
        choice = self.run.choice()
        found = load_weights(backbone, choice.path, allow_changes=self.model.allow_changes)
        best = found if choice.is_best else {}
        export_model(backbone, self.run.model, self.datamodule)
        figures = {"before": self.model.figures_before, "best": best, "last": last if last.get("step") else {}}
        write_json(self.run.folder / "fit.json", {**figures, "steps": self.trainer.global_step})
        distinct = figures if figures["last"] != best else {"before": figures["before"], "best": best}
        columns = {f"{name} (step {row['step']:.0f})": row for name, row in distinct.items() if row}
        if columns:
            print_figures(console, "validation", columns)
        ending = what_ended(self.trainer)
        if self.steps_before == self.trainer.global_step:
            say(f"nothing was left to do after step {self.trainer.global_step}{f': {ending}' if ending else ''}")
        elif ending and ending.is_early:
            say(f"stopped early at step {self.trainer.global_step}: {ending}")
        say(f"model   {self.run.model}  (Hugging Face format, of {choice})")
        self._say_what_next("test" if self.datamodule.stores.get("test") else "predict --data.predict FILE", "preview")

    def after_test(self) -> None:
        if not self.trainer.is_global_zero:
            return
        self.model.to(self.trainer.strategy.root_device)  # the trainer has put it back on the CPU
        checkpoint = self._get(self.config, "ckpt_path")
        files = TestFiles(self.run.folder, self.run.suffix_of(checkpoint and Path(checkpoint)))
        answers, earlier = write_test(
            files,
            self.model,
            self._get(self.config, "answers"),
            checkpoint=checkpoint and Path(checkpoint),
            config=self._shaping(),
        )
        print_figures(console, "test", {"test": self.model.figures["test"]})
        _print_answers(answers)
        read, of = rows_tested(self.model)
        if read < of:
            say(f"warning only {read:,} of {of:,} test rows were read (`--trainer.limit_test_batches`)")
        say(f"written {files.result}; {files.records.name} and {files.answers.name} beside it")
        if earlier is not None:
            say(f"kept    {earlier}: the result that was there, of other rows, settings or weights")
        self._say_what_next("predict --data.predict FILE")

    def after_predict(self) -> None:
        self.predictions.report(say, self.model)

    def after_validate(self) -> None:
        print_figures(console, "validation", {"validation": self.model.figures["val"]})

    def _whole_backbone(self) -> nn.Module:
        """What the best weights are put into: where the trained model is sharded, one that is not."""
        if not isinstance(self.trainer.strategy, ModelParallelStrategy):
            return self.model.backbone
        torch.manual_seed(self.datamodule.seed)  # random weights depend on it
        return build_backbone(self.model.backbone_settings, self.datamodule.tokenizer)

    def _say_what_next(self, *commands: str) -> None:
        folder = self.run.folder
        say(f"curves  tensorboard --logdir {folder.parent.parent}")
        for label, command in zip(("next", "or"), commands, strict=False):
            verb, _, options = command.partition(" ")
            say(f"{label:8}python -m lit_sft {verb} {folder} {options}".rstrip())

    def _shaping(self) -> str:
        """The settings that shape a result, as text to hash: not where it lies, nor how many answers are scored."""
        settings = yaml.safe_load(self.parser.dump(self.config, skip_none=False, skip_validation=True))
        settings = settings.get(self.subcommand, settings)
        return json.dumps(
            {key: settings[key] for key in ("seed_everything", "trainer", "model", "data")}, sort_keys=True
        )

    def _run_folder(self) -> Run:
        settings, checkpoint = self._get(self.config, "run"), self._get(self.config, "ckpt_path")
        if self.subcommand != "fit" and checkpoint and Path(checkpoint).parent.name == "checkpoints":
            return Run(Path(checkpoint).parent.parent)
        files = self._get(self.config, "config") or []
        name = settings.name or (_name_of(Path(str(files[0]))) if files else "run")
        if rank_zero_only.rank:  # type: ignore[attr-defined]
            # only the first process writes; where torchrun or SLURM started this one, it need not know where to
            return Run(Path(os.environ.get(_RUN_FOLDER, f"{settings.root}/{name}/version_0")))
        run = self._trial_run() if self._is_trial() else self.resumed or self._new_run(settings.root, name)
        os.environ[_RUN_FOLDER] = str(run.folder)
        return run

    def _is_trial(self) -> bool:
        return self.subcommand == "fit" and bool(self._get(self.config, "trainer").fast_dev_run)

    def _trial_run(self) -> Run:
        """A folder that is gone when the command ends."""
        if self.resumed:
            raise ValueError("--trainer.fast_dev_run: tries out a new run; leave out --resume.")
        return Run(Path(self.at_end.enter_context(tempfile.TemporaryDirectory())))

    def _new_run(self, root: str, name: str) -> Run:
        above = NewFolders(Path(root) / name)
        run = new_run(root, name)
        self.start = self.at_end.enter_context(RefusedStart(run, above, trains=self.subcommand == "fit"))
        self.at_end.enter_context(lock_run(run.folder))
        return run


class SettingsCLI(LitCLI):
    """Reads what `fit` reads and makes the data module and the (unbuilt) model, but no trainer and no run folder."""

    def __init__(self, arguments: list[str], *, opened: Run | None = None) -> None:
        super().__init__(arguments, run=False, opened=opened)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        # arguments of `fit` itself (ckpt_path, weights_only) are in a run's config.yaml
        parser.add_method_arguments(Trainer, "fit", skip={*LightningCLI.subcommands()["fit"]})

    def before_instantiate_classes(self) -> None:
        self._check_nulls()  # nothing is going to run

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """No trainer is needed."""


class RunRecord(SaveConfigCallback):
    """Writes config.yaml and the ledger into the run folder, and prints the ledger."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        data: SFTDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and not data.val_dataloader():
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint) and not is_measured_in_training(callback.monitor):
                    callback.monitor = None  # nothing to choose the best by: the newest is kept

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit" and LitCLI.resumed is None:
            self._write(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        # not before a resumed run has been accepted: one that is refused must leave the run's files as they are
        if LitCLI.resumed is not None and trainer.is_global_zero:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        data: SFTDataModule = trainer.datamodule  # type: ignore[attr-defined]
        config = self.config.clone()
        # what was said for this time only
        config.ckpt_path, config.run.allow_changes, config.run.allow_code = None, False, None
        config.model.backbone.trust_remote_code = False
        self.parser.save(config, folder / "config.yaml", skip_none=False, overwrite=True, multifile=False)
        write_json(folder / "ledger.json", data.ledgers)
        Run(folder).note_start()
        print_ledger(console, data)
        say(f"run folder: {folder}")


def say(line: str) -> None:
    """Print a line as it is: paths are neither markup nor wrapped."""
    say_on(console, line, keep_lines=True)


def names_config(arguments: list[str]) -> bool:
    """Whether a config file (or help) is asked for, so that no run's own is taken."""
    return any(argument.partition("=")[0] in ("-h", "--help", "-c", "--config") for argument in arguments)


def take_run(command: str, arguments: list[str]) -> tuple[Run, Path, list[str]]:
    """The run named by the first argument, or the newest; its checkpoint; and the other arguments."""
    check_run_first(command, arguments)
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    run, checkpoint = find_run(named, root_of(command, arguments))
    say(f"{command}: run {run.folder}, its config.yaml and {run.described(checkpoint)}")
    return run, checkpoint, arguments[1:] if named else arguments


def _asks_to_resume(argument: str) -> bool:
    return argument.partition("=")[0] == "--resume"


def _resuming(arguments: list[str]) -> list[str]:
    """Arguments of `fit --resume [RUN]` with the run's own config and newest checkpoint in its place."""
    place = next(index for index, argument in enumerate(arguments) if _asks_to_resume(argument))
    rest = arguments[place + 1 :]
    _, is_joined, named = arguments[place].partition("=")
    if not is_joined:
        named = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    others = arguments[:place] + rest
    run, checkpoint, broken = find_resumable(named or None, root_of("fit", others))
    for path in broken:
        say(f"fit: skipping {path}, which cannot be read")
    say(f"fit: continuing {run.folder} from its config.yaml and {checkpoint.name}")
    LitCLI.resumed = run
    LitCLI.at_end.enter_context(paths_of(run))
    if not rank_zero_only.rank:  # type: ignore[attr-defined]
        LitCLI.at_end.enter_context(lock_run(run.folder))
    return ["--config", str(run.config), "--ckpt_path", str(checkpoint), *others]


def _as_list(value: Any) -> list[Any]:
    """A setting of Lightning's that may be one thing or several."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _is_sharded(strategy: object) -> bool:
    """Whether a strategy writes checkpoints its own way."""
    return any(name in str(strategy).lower() for name in ("fsdp", "deepspeed"))


def _tokenizer_name(backbone: Namespace) -> str:
    return _settings(backbone).tokenizer_name


def _context_length(backbone: Namespace) -> int | None:
    try:
        return context_length(_settings(backbone))
    except ValueError:
        return None  # before_instantiate_classes says what is wrong, without the parser's wrapping


def _settings(backbone: Namespace) -> BackboneSettings:
    return BackboneSettings(**vars(backbone))


def _name_of(config: Path) -> str:
    """The name of a config file; of a run's own, the name of that run."""
    return config.resolve().parent.parent.name if config.parent.name.startswith("version_") else config.stem


def _refuse_nulls(prefix: str, owner: Any, values: Namespace) -> None:
    for name, parameter in inspect.signature(owner).parameters.items():
        value, default, annotation = values.get(name), parameter.default, parameter.annotation
        kind = getattr(annotation, "__name__", str(annotation))
        if isinstance(value, Namespace) and is_dataclass(default):
            _refuse_nulls(f"{prefix}.{name}", type(default), value)
        elif name in values and value is None and default is not None and not re.search("None|Optional|Any", kind):
            advice = "give one" if default is parameter.empty else f"leave it out for its default, {default!r}"
            raise ValueError(f"--{prefix}.{name}: null is no value for it ({kind}); {advice}.")


def _check_length(trainer: Namespace) -> None:
    for name in ("max_epochs", "max_steps"):
        if trainer[name] is not None and trainer[name] < 1 and trainer[name] != -1:
            raise ValueError(f"--trainer.{name} {trainer[name]}: expected 1 or more, or -1 for no limit.")
    if trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
        raise ValueError("no end: set `--trainer.max_epochs` or `--trainer.max_steps`; the schedule depends on it.")


def _check_checkpoint(path: str | None, *, to_train: bool) -> None:
    if path is None or path in ("best", "last", "hpc"):
        return
    try:
        saved = read_checkpoint(Path(path), map_location="meta", mmap=True)
    except ValueError as error:
        raise ValueError(f"--ckpt_path {error}") from None
    if "pytorch-lightning_version" not in saved or "global_step" not in saved:
        raise ValueError(f"--ckpt_path {path}: not a checkpoint of a run, but of something else.")
    if to_train and not {"optimizer_states", "lr_schedulers", "loops"} <= saved.keys():
        raise ValueError(
            f"--ckpt_path {path}: holds weights only, which cannot be resumed. To start a new run from them, `export` "
            "them and set `--model.backbone.pretrained` to that folder."
        )


def _steps_of(checkpoint: Path) -> int:
    return int(read_checkpoint(checkpoint, map_location="meta", mmap=True)["global_step"])


def _print_answers(answers: dict[str, float]) -> None:
    if answers:
        say(
            f"answers: {answers['rows']} rows, exact match {answers['exact_match']:.1%}, "
            f"ROUGE-L {answers['rougeL_mixed']:.3f}, ended by the model itself {answers['ended']:.1%}"
        )


def _say_of_thread(stopped: threading.ExceptHookArgs) -> None:
    """In one line: TensorBoard writes in a thread of its own, which a full disk ends; the run says so itself."""
    if isinstance(stopped.exc_value, OSError):
        print(f"a thread that writes has ended: {stopped.exc_value}", file=sys.stderr)
    else:
        threading.__excepthook__(stopped)


def _quieten(command: str) -> None:
    """Hide what is said on every run and tells the user nothing about this one."""
    disable_progress_bar()
    threading.excepthook = _say_of_thread
    for name in ("lightning.pytorch", "lightning.fabric"):  # the seed is in config.yaml
        logging.getLogger(name).setLevel(logging.WARNING)
    if command != "fit":  # what a callback of the training kept is of no use to the other commands
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create the check")
    for message in (
        ".*does not have many workers.*",
        "Total length of `list` across ranks is zero.*",
        "The dirpath has changed from.*",
        "You're resuming from a.*",
        "Checkpoint directory .* exists and is not empty.*",
        "The number of training batches .* is smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*`isinstance\\(treespec.*",
    ):
        warnings.filterwarnings("ignore", message)
