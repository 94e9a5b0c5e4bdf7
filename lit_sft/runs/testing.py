"""Scores a run, and its answers, on a split: `python -m lit_sft test`, or `score_run` from Python."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from data_modules.text_data_module import TextDataModule
from lit_sft.console import console, print_line, quiet
from lit_sft.files import read_json
from lit_sft.runs.lock import lock_test
from lit_sft.runs.metrics_table import print_metrics, print_sources
from lit_sft.runs.session import Session, open_session
from lit_sft.runs.test_result import TestFiles, rows_tested, write_test
from lit_sft.settings.reading import as_options


def score_run(run: str | Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Score a run on its test split, as `python -m lit_sft test RUN` does.

    Args:
        run: A run folder, or one of its checkpoints.
        changes: Settings by dotted name, such as `data.test`.

    Returns:
        The content of the run's result.json.

    Raises:
        UserError: If there is no such run, or it has no test split.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(quiet("test"))
        session = open_session("test", [str(run), *as_options(changes or {})], cleanup)
        test(session)
        return dict(read_json(_files_of(session).result) or {})


def validate(session: Session) -> None:
    """Print the metrics of the validation split."""
    session.build([], [])
    session.run_trainer()
    if session.trainer.is_global_zero:
        print_metrics(console, "validation", {"validation": session.model.metrics["val"]})
        print_sources(console, "validation", session.model.metrics["val"])


def test(session: Session) -> None:
    """Write the metrics and scored answers of the test split as result.json, and print them."""
    files = _files_of(session)
    if not rank_zero_only.rank:  # type: ignore[attr-defined]
        session.cleanup.enter_context(lock_test(files.result))
    session.build([], [])
    session.run_trainer()
    if session.trainer.is_global_zero:
        _report(session, files)


def _files_of(session: Session) -> TestFiles:
    return TestFiles(session.run.folder, session.run.suffix_of(session.checkpoint))


def _report(session: Session, files: TestFiles) -> None:
    model, checkpoint = session.model, session.checkpoint
    model.to(session.trainer.strategy.root_device)  # the trainer has moved it to the CPU
    answers, earlier = write_test(
        files, model, session.config.answers, checkpoint=checkpoint, config=_relevant_settings(session)
    )
    print_metrics(console, "test", {"test": model.metrics["test"]})
    print_sources(console, "test", model.metrics["test"])
    _print_answers(answers)
    read, of = rows_tested(model)
    if read < of:
        print_line(f"warning only {read:,} of {of:,} test rows were read (`--trainer.limit_test_batches`)")
    are_texts = isinstance(session.data, TextDataModule)  # they have no answers
    others = files.records.name if are_texts else f"{files.records.name} and {files.answers.name}"
    print_line(f"written {files.result}{' and' if are_texts else ','} {others}")
    if earlier is not None:
        print_line(f"kept    {earlier}: an earlier result from different rows, settings or weights")
    if not are_texts:
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
