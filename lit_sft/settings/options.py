"""The options of the training commands, their defaults, and links between the model's and the data's settings."""

from __future__ import annotations

from argparse import SUPPRESS
from typing import Any, Literal

import lightning
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]
from lightning.pytorch import Trainer

from data_modules.errors import UserError
from lit_sft.checkpoints.callback import RunCheckpoint
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, context_length
from lit_sft.settings.data_modules import DATA_MODULES, DataModuleName, refused_options
from lit_sft.settings.parser import SettingsParser, Source
from lit_sft.settings.run_length import USUAL_EPOCHS
from lit_sft.settings.run_settings import RunSettings
from lit_sft.training.module import LitCausalLM

Command = Literal["fit", "validate", "test", "predict"]

_USAGES: dict[Command, str] = {
    "fit": "(--config FILE ... | --resume [RUN])",
    "validate": "[RUN | --config FILE ...]",
    "test": "[RUN | --config FILE ...]",
    "predict": "[RUN | --config FILE ...] --data.predict FILE",
}

_TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": USUAL_EPOCHS,
    "accelerator": "auto",
    "devices": 1,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    # validate on everything before the first step: the "before" of every comparison
    "num_sanity_val_steps": -1,
    # the data module distributes the data itself, without repeating examples
    "use_distributed_sampler": False,
    "enable_model_summary": False,
}

_TRAINER_HELP = {
    "max_epochs": "Epochs to train. -1: no limit.",
    "max_steps": "Optimiser steps to train. -1: no limit. Of epochs and steps, the one set last counts.",
    "accumulate_grad_batches": "Batches in an optimiser step.",
    "accelerator": "cpu, gpu, or auto: a CUDA GPU if this machine has one, otherwise the CPU.",
    "devices": "Number of devices, or a list of their indices.",
    "precision": "How weights are kept and computed with; `mixed` keeps them in float32. null: 32-true.",
}
"""One line for the most used options of Lightning's trainer."""

_CHECKPOINT_DEFAULTS: dict[str, Any] = {
    "monitor": "val/loss",
    "filename": "best",
    "enable_version_counter": False,
    "auto_insert_metric_name": False,
}
_CHECKPOINT_HELP = {
    "dirpath": "Cannot be set: checkpoints are kept in the run folder.",
    "filename": "Name without .ckpt; may contain {epoch}, {step} and metrics, such as {val/loss:.3f}.",
    "monitor": "Metric that ranks checkpoints. null: do not rank them.",
    "verbose": "Whether to log every saved checkpoint.",
    "save_last": "Not used: last.ckpt is always written.",
    "save_top_k": "Number of best checkpoints to keep. 0: only last.ckpt; -1: all.",
    "save_on_exception": "Cannot be set to true; see --run.checkpoint_minutes.",
    "save_weights_only": "Whether to leave out the optimiser state. Such files cannot be resumed from.",
    "mode": "Whether the lowest (min) or the highest (max) value of the metric is the best.",
    "auto_insert_metric_name": "Whether file names show metric names as well as their values.",
    "every_n_train_steps": "Save every n steps. Needs `monitor` to be null or a metric measured in training.",
    "train_time_interval": "Save at intervals of time. Needs `monitor` to be null or a metric measured in training.",
    "every_n_epochs": "Save every n epochs.",
    "save_on_train_epoch_end": "Whether to save at the end of an epoch instead of after validation. null: as needed.",
    "enable_version_counter": "Whether a file with an existing name gets a version number instead of replacing it.",
}
"""One line for each option; Lightning's docstrings are long and partly do not apply here."""


_DATA_MODULE_HELP = (
    "What to train on: conversations (sft), or plain text in blocks (text). `fit --data_module text --help` shows the "
    "options of text."
)


def training_parser(
    command: Command = "fit", source: Source | None = None, *, prog: str = "", data_module: DataModuleName = "sft"
) -> SettingsParser:
    """Build the parser of a training command.

    Args:
        command: The command; use `fit` to only read settings.
        source: Where the settings come from.
        prog: The command as shown by `--help`. Empty: `python -m lit_sft COMMAND`.
        data_module: Which data module has the options of `data`; see `data_module_of`.
    """
    prog = prog or f"python -m lit_sft {command}"
    parser = SettingsParser(
        source=source,
        prog=prog,
        usage=f"{prog} {_USAGES[command]} [--SETTING VALUE ...]",
        description=None,
        dump_header=[f"lightning.pytorch=={lightning.__version__}"],
    )
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file of settings; later files win.")
    parser.add_argument("--seed_everything", type=bool | int, default=42, help="Random seed, a whole number.")
    parser.add_argument("--data_module", type=DataModuleName, default=data_module, help=_DATA_MODULE_HELP)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LitCausalLM, "model")
    parser.add_lightning_class_args(DATA_MODULES[data_module], "data")
    parser.data_module, parser.refused = data_module, refused_options(data_module)
    parser.add_class_arguments(RunSettings, "run")
    parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
    parser.set_defaults({f"trainer.{name}": value for name, value in _TRAINER_DEFAULTS.items()})
    parser.set_defaults({f"checkpoint.{name}": value for name, value in _CHECKPOINT_DEFAULTS.items()})
    for action in parser._actions:
        section, _, name = action.dest.partition(".")
        own = {"checkpoint": _CHECKPOINT_HELP, "trainer": _TRAINER_HELP}.get(section, {})
        action.help = own.get(name, action.help)
    _add_own_options(parser, command)
    _link(parser, data_module)
    return parser


def _add_own_options(parser: SettingsParser, command: Command) -> None:
    help_of_resume = "Continue a run (default: the newest) from its newest intact checkpoint."
    is_fit, is_test = (parser.prog.endswith(f" {name}") for name in ("fit", "test"))
    parser.add_argument("--resume", metavar="[RUN]", help=help_of_resume if is_fit else SUPPRESS)
    if command == "predict":
        parser.add_argument("--output", metavar="FILE", help="Answer file. Default: a new one in the run folder.")
    parser.add_argument(
        "--answers",
        type=int,
        default=200,
        help="Maximum number of rows to answer and score." if is_test else SUPPRESS,
    )
    parser.add_method_arguments(Trainer, command, skip=_skipped())


def _skipped() -> set[str | int]:
    """Arguments of the trainer's methods that we set ourselves."""
    return {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}


def _link(parser: SettingsParser, data_module: DataModuleName) -> None:
    parser.link_arguments("model.backbone", "data.tokenizer", compute_fn=_tokenizer_name)
    for name in ("add_tokens", "add_special_tokens"):
        parser.link_arguments(f"model.backbone.{name}", f"data.{name}")
    parser.link_arguments("model.backbone", "data.context_length", compute_fn=_context_length)
    if data_module == "sft":
        parser.link_arguments("model.generation.max_new_tokens", "data.answer_length")
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)


def backbone_settings(backbone: Namespace) -> BackboneSettings:
    """Parsed settings of a backbone as `BackboneSettings`."""
    lora = backbone.lora
    if isinstance(lora, Namespace):
        lora = LoraSettings(**vars(lora))
    return BackboneSettings(**{**vars(backbone), "lora": lora})


def _tokenizer_name(backbone: Namespace) -> str:
    return backbone_settings(backbone).tokenizer_name


def _context_length(backbone: Namespace) -> int | None:
    try:
        return context_length(backbone_settings(backbone))
    except UserError:
        return None  # building the model reports the problem, without the parser's wrapping
