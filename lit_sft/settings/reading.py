"""Settings as objects: from config files, from changes to them, or from the config of a run; no command line needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.backbone import BackboneSettings
from lit_sft.settings.errors import in_one_line, is_from_parser
from lit_sft.settings.nulls import refuse_nulls
from lit_sft.settings.options import Command, training_parser
from lit_sft.settings.parser import SettingsParser, Source
from lit_sft.settings.run_length import RunLength, run_length
from lit_sft.settings.trust import allowed_code, unread_slots
from lit_sft.training.module import LitCausalLM


@dataclass(frozen=True)
class Settings:
    """What a training is made of, read and checked.

    Example:
        >>> settings = read_settings("configs/quickstart.yaml", {"trainer.max_steps": 20})
        >>> settings.config.trainer.max_steps
        20

    Attributes:
        config: Every setting, by section: `config.data.mask`.
        parser: What read them, and writes them.
        length: Limits of the run.
    """

    config: Namespace
    parser: SettingsParser
    length: RunLength

    @property
    def seed(self) -> int:
        """What everything random follows from."""
        return int(self.config.seed_everything)

    def data_module(self) -> SFTDataModule:
        """The data module; nothing is read before `prepare_data` and `setup`."""
        return SFTDataModule(**self.config.data)

    def model(self) -> LitCausalLM:
        """The module, without weights: they are built or loaded when the trainer starts."""
        module: LitCausalLM = self.instantiated(self.parts("model")).model
        return module

    def backbone(self) -> BackboneSettings:
        """Settings of the model's weights."""
        settings: BackboneSettings = self.instantiated(self.parts("model")).model.backbone_settings
        return settings

    def trainer(self, **changes: Any) -> Trainer:
        """A trainer with these settings and checkpoints as they say; it writes no run folder.

        Args:
            **changes: Arguments of Lightning's Trainer in the place of those that were read.
        """
        made = self.instantiated(self.parts("trainer", "checkpoint"))
        callbacks = [*(made.trainer.callbacks or []), made.checkpoint]
        return Trainer(**{**made.trainer, "callbacks": callbacks, **changes})

    def parts(self, *sections: str) -> Namespace:
        """Some sections of the settings only."""
        return Namespace({name: self.config[name] for name in sections})  # type: ignore[no-untyped-call]

    def instantiated(self, config: Namespace | None = None) -> Namespace:
        """Settings with an object for every class that they name.

        Args:
            config: Which. None: all.

        Raises:
            UserError: If an object cannot be made.
        """
        try:
            made: Namespace = self.parser.instantiate_classes(self.config if config is None else config)
            return made
        except ValueError as error:  # of a class that a setting names: it knows which values it takes
            text = str(error)
            raise UserError(in_one_line(text) if is_from_parser(text) else text) from error


def read_settings(
    configs: str | Path | Sequence[str | Path],
    changes: Mapping[str, Any] | None = None,
    *,
    run_config: Path | None = None,
) -> Settings:
    """Read the settings of a training.

    Args:
        configs: YAML files; later ones win.
        changes: Settings by dotted name, over those of the files: `{"data.mask": "output_only"}`.
        run_config: One of the files, if it is that of a run folder: the code that it names is not trusted.

    Raises:
        UserError: If a file or a setting is wrong.
    """
    files = [configs] if isinstance(configs, (str, Path)) else configs
    given = [argument for file in files for argument in ("--config", str(file))]
    return parse_settings([*given, *as_options(changes or {})], run_config=run_config, makes_trainer=run_config is None)


def parse_settings(
    arguments: list[str],
    *,
    command: Command = "fit",
    run_config: Path | None = None,
    makes_trainer: bool = False,
    parser: SettingsParser | None = None,
) -> Settings:
    """Read settings given as options.

    Args:
        arguments: Options as the user types them, `--config FILE` among them.
        command: Whose options.
        run_config: The config of a run, if one is among the arguments.
        makes_trainer: Whether the trainer's callbacks, loggers and plugins are needed; else a run's are not read.
        parser: Made by `training_parser`, perhaps with options added. None: a new one.

    Raises:
        UserError: If an option or a config is wrong.
    """
    unread = unread_slots(command if makes_trainer else None, arguments)
    parser = parser or training_parser(command)
    parser.source = Source(run_config, allowed_code(arguments), unread)
    config = parser.parse_args(arguments)
    refuse_nulls(config)
    length = run_length(config.trainer.max_epochs, config.trainer.max_steps, arguments)
    config.trainer.max_epochs, config.trainer.max_steps = length.max_epochs, length.max_steps
    return Settings(config, parser, length)


def as_options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings by dotted name as options of a command."""
    for name, value in settings.items():
        yield f"--{name}"
        yield value if isinstance(value, str) else json.dumps(value)
