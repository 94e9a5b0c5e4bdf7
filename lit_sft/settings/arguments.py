"""Command-line arguments of commands without settings; mistakes print one line instead of the usage."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import NoReturn

from data_modules.errors import UserError
from lit_sft.settings.sections import nearest

_FLAGS = ("--json",)
"""Options without a value."""

_SEVERAL = ("--masks",)
"""Options with several values."""

_MISSING = "the following arguments are required: "


class Arguments(argparse.ArgumentParser):
    """A parser that reports a user's mistake in one message.

    Args:
        command: The command's name.
        about: What it does, for --help.
        example: Example arguments.
    """

    def __init__(self, command: str, about: str | None, *, example: str) -> None:
        # no abbreviations: their meaning would change when an option is added
        super().__init__(prog=f"python -m lit_sft {command}", description=about, allow_abbrev=False)
        self.example = f"{self.prog} {example}"

    def error(self, message: str) -> NoReturn:
        """Raise the message of argparse.

        Raises:
            UserError: Always.
        """
        raise UserError(self._advised(" ".join(message.split()))) from None

    def _advised(self, message: str) -> str:
        if message.startswith(_MISSING):
            names = message.removeprefix(_MISSING).replace(", ", " and ")
            return f"{names}: not given. Example: `{self.example}`; `--help` lists all options."
        if unknown := re.match(r"unrecognized arguments: (\S+)", message):
            return self._unknown(unknown[1])
        if wrong := re.match(r"argument (\S+): (.+)", message):
            return f"{wrong[1]}: {wrong[2]}. Example: `{self.example}`."
        return f"{message}; `--help` lists all options."

    def _unknown(self, given: str) -> str:
        if not given.startswith("-"):
            return f"{given}: not expected here; `--help` lists all options."
        options = {option.lstrip("-") for action in self._actions for option in action.option_strings}
        advice = nearest(given.partition("=")[0].lstrip("-"), options, sign="--") or "`--help` lists all options."
        return f"{given.partition('=')[0]}: no such option; {advice}"  # its value may be a key


def check_run_first(command: str, arguments: list[str]) -> None:
    """Reject a run (or anything else) given after the options, where it would be ignored and the newest run used.

    Args:
        command: The command's name.
        arguments: Its arguments. The first may be a run; all but a few options take one value.

    Raises:
        UserError: If there is one.
    """
    option = ""
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            option = argument
            continue
        before = arguments[place - 1] if place else argument
        is_value = before.startswith("-") and "=" not in before and before not in _FLAGS
        if place and not is_value and option not in _SEVERAL:
            raise UserError(_misplaced(command, arguments, place))


def _misplaced(command: str, arguments: list[str], place: int) -> str:
    argument, rest = arguments[place], [*arguments[:place], *arguments[place + 1 :]]
    if not rest[0].startswith("-"):
        return f"{argument}: not expected here; you have already named the run {rest[0]}."
    command_line = shlex.join(["python", "-m", "lit_sft", command, argument, *rest])
    return f"{argument}: not expected here; a run goes before the options: `{command_line}`."


def in_long_form(arguments: Sequence[str]) -> list[str]:
    """Spell `-c FILE` and `-cFILE` as `--config FILE`, so that everything else looks for one spelling only."""
    spelled: list[str] = []
    for argument in arguments:
        if argument.startswith("-c"):
            spelled += ["--config", *([argument[2:].removeprefix("=")] if argument[2:] else [])]
        else:
            spelled.append(argument)
    return spelled


def is_given(option: str, arguments: list[str]) -> bool:
    """Whether an option is among the arguments, as `--option value` or `--option=value`."""
    return any(argument.partition("=")[0] == option for argument in arguments)


def root_of(command: str, arguments: list[str]) -> str:
    """The folder of all runs: `--run.root` among the arguments, or its default.

    Raises:
        UserError: If the option has no value.
    """
    parser = Arguments(command, None, example="--run.root runs")
    parser.add_argument("--run.root", dest="root", default="runs")
    return str(parser.parse_known_args(arguments)[0].root)
