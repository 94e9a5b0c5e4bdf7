"""`python -m lit_sft predict [RUN] --data.predict FILE`: answers prompts and writes JSON lines."""

from __future__ import annotations

from pathlib import Path

from lit_sft.cli.session import Session, run_command
from lit_sft.console import print_line
from lit_sft.runs.predictions import PredictionWriter, leave_training_data


def main(argv: list[str]) -> None:
    """Answer prompts.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If a setting or the data is wrong.
    """
    run_command(argv, predict)


def predict(session: Session) -> None:
    """Write an answer to every prompt, and print the first ones."""
    leave_training_data(session.config.data, session.run.folder)
    writer = PredictionWriter(session.run.folder, Path(session.config.output) if session.config.output else None)
    session.build([writer], [])
    session.run_trainer()
    writer.report(print_line, session.model)
