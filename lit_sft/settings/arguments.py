"""Command-line arguments of the commands without settings; mistakes end in one line rather than in the usage."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import NoReturn

from data_modules.errors import UserError
from lit_sft.settings.sections import nearest

_FLAGS = ("--json",)
"""Options without a value."""

_SEVERAL = ("--masks",)
"""Options with several values."""

_MISSING = "the following arguments are required: "


class Arguments(argparse.ArgumentParser):
    """A parser that raises a user's mistake as one message.

    Args:
        command: Its name.
        about: What it does, for --help.
        example: Arguments that it could be given.
    """

    def __init__(self, command: str, about: str | None, *, example: str) -> None:
        # a name that is cut short would be taken for the one it begins, and for another once there are two
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
        return f"{given}: no such option; {advice}"


def check_run_first(command: str, arguments: list[str]) -> None:
    """Refuse a run (or anything else) that is named behind the options, before another run is taken in its place.

    Args:
        command: Its name.
        arguments: Of a command that takes a run as its first argument. Every option but a few takes one value.

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
        return f"{argument}: not expected here; the run is already given as {rest[0]}."
    command_line = shlex.join(["python", "-m", "lit_sft", command, argument, *rest])
    return f"{argument}: not expected here; a run goes before the options: `{command_line}`."


def is_given(option: str, arguments: list[str]) -> bool:
    """Whether an option is among the arguments, with its value behind it or joined to it."""
    return any(argument.partition("=")[0] == option for argument in arguments)


def root_of(command: str, arguments: list[str]) -> str:
    """The folder of all runs that the arguments of a command name, or its default.

    Raises:
        UserError: If the option has no value.
    """
    parser = Arguments(command, None, example="--run.root runs")
    parser.add_argument("--run.root", dest="root", default="runs")
    return str(parser.parse_known_args(arguments)[0].root)
