"""The commands that use a trainer: fit, validate, test and predict."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from lightning.fabric.utilities.exceptions import MisconfigurationException

from data_modules.errors import UserError
from lit_sft.console import print_line, quieten
from lit_sft.failures import message_of
from lit_sft.runs.fitting import fit
from lit_sft.runs.predictions import PredictionWriter, without_training_data
from lit_sft.runs.session import Session, open_session
from lit_sft.runs.testing import test, validate
from lit_sft.settings.options import Command


def main(argv: list[str]) -> None:
    """Run a command.

    Args:
        argv: The command's name, and its arguments.

    Raises:
        UserError: If a setting or the data is wrong, or on a failure that the user can fix.
    """
    name = cast(Command, argv[0])
    quieten(name)
    with contextlib.ExitStack() as cleanup:
        try:
            session = open_session(name, argv[1:], cleanup)
            # Lightning starts the other processes of a node with these
            sys.argv[1:] = [name, *session.request.arguments]
            _COMMANDS[name](session)
        except (MisconfigurationException, ArithmeticError, ImportError, RuntimeError, TypeError, ValueError) as error:
            if (message := message_of(error)) is None:
                raise
            raise UserError(message) from error


def predict(session: Session) -> None:
    """Write an answer to every prompt, and print the first ones."""
    session.settings = without_training_data(session.settings, session.run.folder)
    writer = PredictionWriter(session.run.folder, Path(session.config.output) if session.config.output else None)
    if not session.config.data.predict:
        print_line("predict: no --data.predict, so these are answers to the test split")
    session.build([writer], [])
    session.run_trainer()
    writer.report(print_line, session.model)


_COMMANDS: dict[Command, Callable[[Session], None]] = {
    "fit": fit,
    "validate": validate,
    "test": test,
    "predict": predict,
}
