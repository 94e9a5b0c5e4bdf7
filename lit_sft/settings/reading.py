"""Reads settings from config files, changes to them, or a run's config; no command line needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from lit_sft.models.backbone import BackboneSettings
from lit_sft.settings.arguments import in_long_form
from lit_sft.settings.data_modules import DATA_MODULES, data_module_of
from lit_sft.settings.errors import in_one_line, is_from_parser
from lit_sft.settings.logger_names import in_short_form
from lit_sft.settings.nulls import refuse_nulls
from lit_sft.settings.options import Command, training_parser
from lit_sft.settings.parser import SettingsParser, Source
from lit_sft.settings.run_length import RunLength, run_length
from lit_sft.settings.trust import allowed_code, ignored_class_settings
from lit_sft.training.module import LitCausalLM
from lit_sft.training.trainer import build_trainer

_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Settings:
    """Everything that defines a training run, read and checked.

    Example:
        >>> settings = read_settings("configs/quickstart.yaml", {"trainer.max_steps": 20})
        >>> settings.config.trainer.max_steps
        20

    Attributes:
        config: Every setting, by section: `config.data.mask`.
        parser: The parser that read them; it also writes them.
        length: Limits of the run.
    """

    config: Namespace
    parser: SettingsParser
    length: RunLength

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return int(self.config.seed_everything)

    def data_module(self) -> SFTDataModule | TextDataModule:
        """Build the data module; nothing is read before `prepare_data` and `setup`."""
        return DATA_MODULES[self.config.data_module](**self.config.data)

    def model(self) -> LitCausalLM:
        """Build the module; its weights are built or loaded when the trainer starts."""
        module: LitCausalLM = self.instantiated(self.parts("model")).model
        return module

    def backbone(self) -> BackboneSettings:
        """Settings of the model's weights."""
        settings: BackboneSettings = self.instantiated(self.parts("model")).model.backbone_settings
        return settings

    def trainer(self, **changes: Any) -> Trainer:
        """Build a trainer with these settings that writes no files of its own.

        `lit_sft.runs.fitting.train` trains in a run folder, with logs and checkpoints.

        Args:
            **changes: Arguments of Lightning's Trainer that override the settings.
        """
        built = self.instantiated(self.parts("trainer")).trainer
        logger = False if built.logger in (None, True) else built.logger
        # as settings: `callbacks` given to build_trainer would be added to those of the config
        return build_trainer({**built.as_dict(), "enable_checkpointing": False, "logger": logger, **changes})

    def parts(self, *sections: str) -> Namespace:
        """Some sections of the settings."""
        return Namespace({name: self.config[name] for name in sections})  # type: ignore[no-untyped-call]

    def instantiated(self, config: Namespace | None = None) -> Namespace:
        """Build an object for every class that the settings name.

        Args:
            config: Which settings. None: all.

        Raises:
            UserError: If an object cannot be built.
        """
        try:
            made: Namespace = self.parser.instantiate_classes(self.config if config is None else config)
            return made
        except ValueError as error:  # raised by a class that a setting names
            text = str(error)
            raise UserError(in_one_line(text) if is_from_parser(text) else text) from error


def read_settings(
    configs: str | Path | Sequence[str | Path],
    changes: Mapping[str, Any] | None = None,
    *,
    run_config: Path | None = None,
) -> Settings:
    """Read the settings of a training run.

    Args:
        configs: YAML files; later files win.
        changes: Settings by dotted name that override the files: `{"data.mask": "output_only"}`.
        run_config: Which of the files comes from a run folder, if any; code that it names is not trusted.

    Raises:
        UserError: If a file or a setting is wrong.
    """
    files = [configs] if isinstance(configs, (str, Path)) else configs
    given = [argument for file in files for argument in ("--config", str(file))]
    return parse_settings(
        [*given, *as_options(changes or {})], run_config=run_config, reads_trainer_classes=run_config is None
    )


def parse_settings(
    arguments: list[str],
    *,
    command: Command = "fit",
    run_config: Path | None = None,
    reads_trainer_classes: bool = False,
    parser: SettingsParser | None = None,
) -> Settings:
    """Read settings from command-line options.

    Args:
        arguments: Options as the user types them, including `--config FILE`.
        command: The command that takes them.
        run_config: The config of a run, if it is among the arguments.
        reads_trainer_classes: Whether to read callbacks, loggers and plugins from a run's config.
        parser: A parser from `training_parser`, perhaps with more options. None: a new one.

    Raises:
        UserError: If an option or a config is wrong.
    """
    arguments = in_short_form(in_long_form(arguments))
    unread = ignored_class_settings(command if reads_trainer_classes else None, arguments)
    name = data_module_of(arguments)
    if name == "text" and (command == "predict" or (parser is not None and parser.data_module != name)):
        this = parser.prog.rpartition(" ")[2] if parser else command
        raise UserError(
            f"{this} is for conversations, and this is a text run (data_module: text); score it with `test`."
        )
    parser = parser or training_parser(command, data_module=name)
    parser.source = Source(run_config, allowed_code(arguments), unread)
    config = parser.parse_args(arguments)
    refuse_nulls(config)
    _check_seed(config.seed_everything)
    length = run_length(config.trainer.max_epochs, config.trainer.max_steps, arguments)
    config.trainer.max_epochs, config.trainer.max_steps = length.max_epochs, length.max_steps
    return Settings(config, parser, length)


def _check_seed(seed: int) -> None:
    """Check the range that NumPy accepts; true and false are in it, and `fit` refuses them."""
    if not 0 <= seed <= _LARGEST_SEED:
        raise UserError(f"--seed_everything {seed}: expected a whole number from 0 to {_LARGEST_SEED}.")


def as_options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Turn settings by dotted name into command-line options."""
    for name, value in settings.items():
        # one argument, since a value of its own may begin with a hyphen
        yield f"--{name}={os.fspath(value) if isinstance(value, (str, Path)) else json.dumps(value, default=os.fspath)}"
