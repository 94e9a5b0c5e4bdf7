"""The parser of the training commands: unique keys, sections of the right shape, and errors of one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings
from jsonargparse import _loaders_dumpers as loaders
from jsonargparse._actions import _ActionConfigLoad
from lightning.pytorch.cli import LightningArgumentParser

from data_modules.errors import UserError
from lit_sft.settings.errors import in_one_line, setting_of
from lit_sft.settings.sections import check_sections
from lit_sft.settings.trust import check_parts, is_runs_config, known_imports_only, refuse_trust, vetted
from lit_sft.yaml_loader import check_yaml, line_of, load_yaml

_NOT_IN_CONFIGS = {"c", "config", "h", "print_config"}

if not hasattr(LightningArgumentParser, "_load_config_parser_mode"):
    # what is overridden below would never be called, and the config of a run would be read unchecked
    raise ImportError("this version of jsonargparse reads configs another way; install jsonargparse>=4.53,<4.54.")

_load_any = get_loader("yaml")
_LOADER: Any = loaders.get_yaml_default_loader()  # type: ignore[no-untyped-call]


def _load(text: str) -> Any:
    """Any value given as text, on the command line or inside a config."""
    check_yaml(text)
    try:
        return _load_any(text)
    except ValueError as error:  # such as a number of more than 4,300 digits
        raise yaml.YAMLError(str(error)) from None


set_loader("yaml", _load, (yaml.YAMLError,))
loaders.yaml_load = _load  # values of type Any are read past the loader above
# a value of type Any stays as it is: naming a class in it builds nothing
set_parsing_settings(instantiate_subclass_spec_in_any=False)


@dataclass(frozen=True)
class Source:
    """Where settings come from.

    Attributes:
        run_config: The config of a run that was opened, if one was.
        allowed: Import paths that the command line allows a run's config to name.
        unread: Settings of the trainer that a run's config need not give.
    """

    run_config: Path | None = None
    allowed: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()

    def is_run(self, path: Path) -> bool:
        return is_runs_config(path) or (self.run_config is not None and path.samefile(self.run_config))


class SettingsParser(LightningArgumentParser):
    """A parser that ends in one message rather than in thirty lines of usage.

    Args:
        source: Where the settings come from.
        **options: Of jsonargparse's parser.
    """

    def __init__(self, *args: Any, source: Source | None = None, **options: Any) -> None:
        # a name that is cut short would be taken for the one it begins, and for another once there are two
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self.source = source or Source()
        self._given = "--config"
        """The config that is being read, as the user named it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a user's mistake, with the nearest option where one was misspelt."""
        raise UserError(in_one_line(message, options_of(self))) from None

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **options: Any) -> Namespace:
        self._given = str(path)  # what follows runs in the config's folder and sees its name alone
        try:
            parsed: Namespace = super().parse_path(path, *args, **options)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); expected a YAML file. Check which "
                "file is meant, or save it as UTF-8."
            ) from None
        return parsed

    def _load_config_parser_mode(
        self,
        content: str,
        path: str | os.PathLike[str] = "",
        ext_vars: dict[str, Any] | None = None,
        prev_cfg: Namespace | None = None,
    ) -> Namespace:
        # jsonargparse reads every config here, and keeps the last of two equal keys
        place = self._given if path else "--config"
        values, lines = load_yaml(content, place, loader=_LOADER)
        options = {name for name in options_of(self) if not name.endswith("help")} - _NOT_IN_CONFIGS
        sections = check_sections(values, place, lines, groups=groups_of(self), options=options)
        if not path or not self.source.is_run(Path(os.path.abspath(path))):
            refuse_trust(sections, place, lines)
            return self._located(sections, prev_cfg, place, lines)
        sections = vetted(sections, place, lines, self.source.allowed, self.source.unread)
        with known_imports_only(place, self.source.allowed):
            parsed = self._located(sections, prev_cfg, place, lines)
        check_parts(parsed, place, self.source.allowed)
        return parsed

    def _located(
        self, sections: dict[str, Any], before: Namespace | None, place: str, lines: Mapping[tuple[str, ...], int]
    ) -> Namespace:
        """Check the settings of a config; a value of the wrong type is named with its line."""
        try:
            parsed: Namespace = self._apply_actions(sections, prev_cfg=before)
        except TypeError as error:
            setting = setting_of(str(error))
            if setting is None:
                raise
            line = line_of(setting, lines)
            at = f"{place}:{line}" if line else place
            raise UserError(f"{at}: {in_one_line(str(error), options_of(self))}") from None
        return parsed


def _parsers(parser: LightningArgumentParser) -> list[LightningArgumentParser]:
    commands = getattr(parser, "_subcommands_action", None)
    return [parser, *(commands.choices.values() if commands else ())]


def options_of(parser: LightningArgumentParser) -> set[str]:
    """Every option of a parser and of its commands, such as `data.mask`."""
    actions = [action for p in _parsers(parser) for action in p._actions]
    options = {option.lstrip("-") for action in actions for option in action.option_strings}
    return {option for option in options if not option.endswith("+")}


def groups_of(parser: LightningArgumentParser) -> set[str]:
    """Options that hold others, such as `data` and `model.backbone`."""
    return {action.dest for p in _parsers(parser) for action in p._actions if isinstance(action, _ActionConfigLoad)}
