"""The parser of the training commands: strict YAML, checked sections, and one-line errors."""

from __future__ import annotations

import os
import re
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
from lit_sft.settings.data_modules import DataModuleName
from lit_sft.settings.errors import in_one_line, setting_of
from lit_sft.settings.logger_names import with_named_loggers
from lit_sft.settings.sections import check_sections
from lit_sft.settings.trust import check_parts, checked_run_settings, is_runs_config, known_imports_only, refuse_trust
from lit_sft.yaml_loader import check_yaml, line_of, load_yaml

_NOT_IN_CONFIGS = {"c", "config", "h", "print_config"}

if not hasattr(LightningArgumentParser, "_load_config_parser_mode"):
    # the override below would never be called, and a run's config would be read unchecked
    raise ImportError("this version of jsonargparse is not supported; install jsonargparse>=4.53,<4.54.")

_load_any = get_loader("yaml")
_LOADER: Any = loaders.get_yaml_default_loader()  # type: ignore[no-untyped-call]


def _load(text: str) -> Any:
    """Load any value given as text, on the command line or inside a config."""
    check_yaml(text)
    try:
        return _load_any(text)
    except ValueError as error:  # such as a number of more than 4,300 digits
        raise yaml.YAMLError(str(error)) from None


set_loader("yaml", _load, (yaml.YAMLError,))
loaders.yaml_load = _load  # values of type Any bypass the loader above
# do not build classes named in values of type Any
set_parsing_settings(instantiate_subclass_spec_in_any=False)


@dataclass(frozen=True)
class Source:
    """Where settings come from.

    Attributes:
        run_config: The config of the opened run, if any.
        allowed: Import paths that the command line allows in a run's config.
        unread: The trainer's settings to ignore in a run's config.
    """

    run_config: Path | None = None
    allowed: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()

    def is_run(self, path: Path) -> bool:
        """Whether a config belongs to a run folder."""
        return is_runs_config(path) or (self.run_config is not None and path.samefile(self.run_config))


class SettingsParser(LightningArgumentParser):
    """A parser that reports a mistake in one message instead of thirty lines of usage.

    Args:
        source: Where the settings come from.
        **options: Options of jsonargparse's parser.
    """

    def __init__(self, *args: Any, source: Source | None = None, **options: Any) -> None:
        # no abbreviations: their meaning would change when an option is added
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self.source = source or Source()
        self.data_module: DataModuleName = "sft"
        """Which data module has the options of `data`."""
        self.is_of_runs = True
        """Whether its configs are those of runs, which must not allow code or name an output file."""
        self.refused: dict[str, str] = {}
        """Why options of the other data module are refused, by option."""
        self._given = "--config"
        """The config being read, as the user named it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a user's mistake, with the closest option if one was misspelt."""
        unknown = re.match(r"unrecognized arguments: --([\w.]+)", message)
        if unknown and unknown[1] in self.refused:
            raise UserError(f"--{unknown[1]}: {self.refused[unknown[1]]}") from None
        raise UserError(in_one_line(message, options_of(self))) from None

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **options: Any) -> Namespace:
        """Read a config; its name is kept for error messages."""
        self._given = str(path)  # the code below runs in the config's folder and sees only the file name
        try:
            parsed: Namespace = super().parse_path(path, *args, **options)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); expected a YAML file. Check the path, "
                "or save the file as UTF-8."
            ) from None
        return parsed

    def _load_config_parser_mode(
        self,
        content: str,
        path: str | os.PathLike[str] = "",
        ext_vars: dict[str, Any] | None = None,
        prev_cfg: Namespace | None = None,
    ) -> Namespace:
        # jsonargparse reads every config here, and silently keeps the last of two equal keys
        place = self._given if path else "--config"
        values, lines = load_yaml(content, place, loader=_LOADER)
        options = {name for name in options_of(self) if not name.endswith("help")} - _NOT_IN_CONFIGS
        sections = check_sections(values, place, lines, groups=groups_of(self), options=options, refused=self.refused)
        sections = with_named_loggers(sections, place)
        if not path or not self.source.is_run(Path(os.path.abspath(path))):
            if self.is_of_runs:
                refuse_trust(sections, place, lines)
            return self._located(sections, prev_cfg, place, lines)
        sections = checked_run_settings(sections, place, lines, self.source.allowed, self.source.unread)
        with known_imports_only(place, self.source.allowed):
            parsed = self._located(sections, prev_cfg, place, lines)
        check_parts(parsed, place, self.source.allowed)
        return parsed

    def _located(
        self, sections: dict[str, Any], before: Namespace | None, place: str, lines: Mapping[tuple[str, ...], int]
    ) -> Namespace:
        """Check the settings of a config; errors about wrong types name the line."""
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


def options_of(parser: LightningArgumentParser) -> set[str]:
    """All options of a parser, such as `data.mask`."""
    options = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    return {option for option in options if not option.endswith("+")}


def groups_of(parser: LightningArgumentParser) -> set[str]:
    """Options that contain others, such as `data` and `model.backbone`."""
    return {action.dest for action in parser._actions if isinstance(action, _ActionConfigLoad)}
