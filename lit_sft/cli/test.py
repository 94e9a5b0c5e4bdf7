"""`python -m lit_sft validate [RUN]` and `test [RUN]`: score a run, and its answers, on a split."""

from __future__ import annotations

import json

import yaml
from lightning.pytorch.utilities import rank_zero_only

from lit_sft.cli.session import Session, run_command
from lit_sft.console import console, print_line
from lit_sft.runs.lock import lock_test
from lit_sft.runs.test_result import TestFiles, print_metrics, rows_tested, write_test


def main(argv: list[str]) -> None:
    """Score a run on its validation or test split.

    Args:
        argv: The command's name, `validate` or `test`, and its arguments.

    Raises:
        UserError: If a setting or the data is wrong, or the run has no such split.
    """
    run_command(argv, {"validate": validate, "test": test}[argv[0]])


def validate(session: Session) -> None:
    """Print the metrics of the validation split."""
    session.build([], [])
    session.run_trainer()
    if session.trainer.is_global_zero:
        print_metrics(console, "validation", {"validation": session.model.metrics["val"]})


def test(session: Session) -> None:
    """Write the metrics and scored answers of the test split as result.json, and print them."""
    files = TestFiles(session.run.folder, session.run.suffix_of(session.checkpoint))
    if not rank_zero_only.rank:  # type: ignore[attr-defined]
        session.held.enter_context(lock_test(files.result))
    session.build([], [])
    session.run_trainer()
    if session.trainer.is_global_zero:
        _report(session, files)


def _report(session: Session, files: TestFiles) -> None:
    model, checkpoint = session.model, session.checkpoint
    model.to(session.trainer.strategy.root_device)  # the trainer has moved it to the CPU
    answers, earlier = write_test(
        files, model, session.config.answers, checkpoint=checkpoint, config=_relevant_settings(session)
    )
    print_metrics(console, "test", {"test": model.metrics["test"]})
    _print_answers(answers)
    read, of = rows_tested(model)
    if read < of:
        print_line(f"warning only {read:,} of {of:,} test rows were read (`--trainer.limit_test_batches`)")
    print_line(f"written {files.result}, {files.records.name} and {files.answers.name}")
    if earlier is not None:
        print_line(f"kept    {earlier}: an earlier result from different rows, settings or weights")
    session.print_next_steps("predict --data.predict FILE")


def _relevant_settings(session: Session) -> str:
    """The settings that affect a result, as text to hash; not its location or the number of scored answers."""
    settings = session.settings
    dumped = yaml.safe_load(settings.parser.dump(settings.config, skip_none=False, skip_validation=True))
    return json.dumps({key: dumped[key] for key in ("seed_everything", "trainer", "model", "data")}, sort_keys=True)


def _print_answers(answers: dict[str, float]) -> None:
    if answers:
        print_line(
            f"answers: {answers['rows']} rows, exact match {answers['exact_match']:.1%}, "
            f"ROUGE-L {answers['rougeL_mixed']:.3f}, ended by the model {answers['ended']:.1%}"
        )
