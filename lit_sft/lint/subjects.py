"""What the arguments of lint name: data files, a run, a config, or a dump of labels."""

from __future__ import annotations

import json
from pathlib import Path

from data_modules.errors import UserError
from lit_sft.runs.folders import Run
from lit_sft.runs.requests import names_config, with_run_config
from lit_sft.settings.arguments import in_long_form, is_given

_FLAGS = ("--strict", "--list-rules", "--help", "-h")
"""Options without a value; all others take one."""

_WHOLE = ("--data.val_fraction=0.0", "--data.test_fraction=0.0")
"""Nothing is held out of files that are named on the command line: all their rows are linted as one split."""


def with_subject(command: str, arguments: list[str]) -> tuple[list[str], Run | None]:
    """Turn the arguments into settings: those of the named run, config or data files.

    Args:
        command: The command's name.
        arguments: Its arguments. Data files may stand before or after the options, a run before them.

    Returns:
        The settings as options, and the run whose config is among them, if any.

    Raises:
        UserError: If data files are named twice, or the named run does not exist.
    """
    named, options = _split(in_long_form(arguments))
    options = [_renamed(option) for option in options]
    is_dump = is_given("--labels", options)
    if is_given("--as", options) and not is_dump:
        raise UserError("--as: only with --labels, the file that the trainer's labels were written to.")
    if is_dump and not named:
        return options, None
    if is_dump and not is_given("--as", options):
        raise UserError(f"{named[0]}: not expected with --labels, which names the file itself (unless with --as).")
    if not is_dump and len(named) == 1 and _is_run(named[0]) and not names_config(options):
        return with_run_config(command, [named[0], *_without_values(options)])
    if not named:
        is_data = any(is_given(name, options) for name in ("--data.train", "--data.mix")) or names_config(options)
        return (options, None) if is_data else with_run_config(command, options)
    if is_given("--data.train", options):
        raise UserError(f"{named[0]}: data files are named twice; leave out --data.train.")
    given = [option for option in _WHOLE if not is_given(option.partition("=")[0], options)]
    # after a config, so that the named files win
    return [*options, *given, f"--data.train={json.dumps(named)}"], None


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate names from options and their values."""
    named, options, takes_value = [], [], False
    for argument in arguments:
        if takes_value or argument.startswith("-"):
            options.append(argument)
            takes_value = not takes_value and "=" not in argument and argument not in _FLAGS
        else:
            named.append(argument)
    return named, options


def _renamed(option: str) -> str:
    name, equals, value = option.partition("=")
    return f"--model.backbone.tokenizer{equals}{value}" if name == "--tokenizer" else option


def _without_values(options: list[str]) -> list[str]:
    """Options with their values joined by `=`, so that no value can be taken for a run."""
    joined: list[str] = []
    for option in options:
        if joined and not option.startswith("--") and joined[-1] not in _FLAGS and "=" not in joined[-1]:
            joined[-1] = f"{joined[-1]}={option}"
        else:
            joined.append(option)
    return joined


def _is_run(name: str) -> bool:
    """Whether a name is that of a run folder or a checkpoint, not of data."""
    return name.endswith(".ckpt") or (Path(name) / "config.yaml").is_file() or (Path(name) / "checkpoints").is_dir()
