"""Evaluate models from Python: score them on a suite, have their answers judged, write the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials
from lit_sft.evaluation.choices import content_hash, read_choices
from lit_sft.evaluation.contamination import Exposure, Items, find_exposure, find_seen
from lit_sft.evaluation.evaluate import evaluate
from lit_sft.evaluation.evaluation_report import make_report
from lit_sft.evaluation.harness_code import check_tasks
from lit_sft.evaluation.item_results import Results
from lit_sft.evaluation.judge_votes import votes_of
from lit_sft.evaluation.report_tables import TRAINING_DATA
from lit_sft.evaluation.suite import ChoiceSet, JudgeSettings, Suite
from lit_sft.evaluation.training_data import training_data_of
from lit_sft.evaluation.win_rate import AllVerdicts, judge_models
from lit_sft.failures import reason_of_part
from lit_sft.models.loaded import LoadedModel
from lit_sft.reporting.page import print_summary, write_pages
from lit_sft.runs.opening import open_model
from lit_sft.votes import write_votes


def evaluate_models(
    models: Mapping[str, str],
    suite: Suite,
    folder: str | Path,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    allow_code: Sequence[str] = (),
    log: Callable[[str], None] = print,
    warn: Callable[[str], None] | None = None,
    console: Console | None = None,
) -> tuple[Results, Path]:
    """Score models on a suite, compare each with the first, and write the report.

    A model, set or judge that fails does not stop the others; `Results.failures` names it.

    Args:
        models: Names to sources, the baseline first. A source is anything `open_model` takes.
        suite: What to score, as `read_suite` reads it or made in Python.
        folder: Where scores and the report go. Scores of the same model and items are reused.
        device: `auto` takes a GPU if there is one.
        dtype: Dtype of the weights. None: bfloat16 on a GPU that has it, else float32.
        allow_code: Folders of lm-eval tasks whose code may run.
        log: Prints a line of progress.
        warn: Prints a line about what failed. None: `log`.
        console: Where to print the answer and the metrics that matter. None: nowhere.

    Returns:
        The scores, and the report's page.

    Raises:
        UserError: If nothing could be scored, or tasks of the suite would run code that is not allowed.
    """
    for settings in suite.harness.values():
        if settings.include is not None:
            check_tasks(settings.include, allow_code)
    folder, warn = Path(folder), warn or log
    folder.mkdir(parents=True, exist_ok=True)
    load = partial(open_model, template=suite.template, device=device, dtype=dtype)
    loaders = {name: partial(load, name, source) for name, source in models.items()}
    results = evaluate(suite, loaders, folder / "items", log, warn, allow_code=allow_code)
    if not results.results:
        raise UserError(
            f"nothing could be scored; see the {'reasons' if len(results.failures) > 1 else 'reason'} above."
        )
    judgings = _judgings(suite, results, folder, log, warn, load)
    exposures = _exposures(suite, models, results, folder, log, warn)
    seen = _seen(suite, results, folder, warn)
    about = [
        *(f"“{name}”: {source}; {results.about.get(name, 'not loaded')}" for name, source in models.items()),
        *([_about_judge(suite.judge)] if suite.judge else []),
        f"Versions: {', '.join(f'{package} {version(package)}' for package in ('torch', 'transformers', 'peft'))}.",
        *_about_sets(suite),
    ]
    report = make_report(suite, results, folder, about=about, seen=seen, judgings=judgings, exposures=exposures)
    page = write_pages(report, folder)
    if console is not None:
        print_summary(console, report, page)
    return results, page


def _judgings(
    suite: Suite,
    results: Results,
    folder: Path,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    load: Callable[..., LoadedModel],
) -> AllVerdicts:
    """Compare the answers in pairs, if the suite has a judge. If that fails, the scores are reported anyway."""
    if suite.judge is None:
        return {}
    try:
        judgings = judge_models(suite.judge, results, folder, log, load)
        write_votes(folder / "judge_votes.jsonl", votes_of(suite, results, judgings))
        return judgings
    except Exception as error:
        results.failures["judge"] = reason_of_part(error, folder)
        warn(f"judge: {results.failures['judge']}")
        return {}


def _seen(suite: Suite, results: Results, folder: Path, warn: Callable[[str], None]) -> Items:
    """Search the training records that the suite names for the items. If that fails, the scores are reported anyway."""
    try:
        return find_seen(suite, results, suite.trained_on) if suite.trained_on else {}
    except Exception as error:
        results.failures["trained_on"] = reason_of_part(error, folder)
        warn(f"trained_on: {results.failures['trained_on']}")
        return {}


def _exposures(
    suite: Suite,
    models: Mapping[str, str],
    results: Results,
    folder: Path,
    log: Callable[[str], None],
    warn: Callable[[str], None],
) -> dict[str, Exposure]:
    """Search the training data of models that are runs for the items, by model; failures go to `results`."""
    found: dict[str, Exposure] = {}
    for name, source in models.items():
        if name not in results.about:
            continue
        try:
            data = training_data_of(source)
            if data is None:
                continue
            same = next((known for known in found.values() if known.data == data), None)
            found[name] = same or find_exposure(suite, results, name, data)
        except Exception as error:  # the scores are reported anyway
            what = f"{name}, {TRAINING_DATA}"
            results.failures[what] = reason_of_part(error, folder)
            warn(f"{what}: {results.failures[what]}")
            continue
        log(f"{name}: trained on {found[name].data.description}")
    return found


def _about_judge(judge: JudgeSettings) -> str:
    if judge.endpoint is not None:
        return f"Judge: {judge.model} at {without_credentials(judge.endpoint)}."
    return f"Judge: the likelihood of an answer under {judge.model}, which does not measure truth."


def _about_sets(suite: Suite) -> list[str]:
    facts = []
    for _, name, settings in suite.sets():
        what = ", ".join(f"{key} {_in_words(value)}" for key, value in vars(settings).items() if value is not None)
        if isinstance(settings, ChoiceSet):
            try:
                what += f", content {content_hash(read_choices(settings.data)[0])}"
            except UserError:
                continue  # reported as not scored
        facts.append(f"{name}: {what}")
    return facts


def _in_words(value: object) -> str:
    """A setting as people write it: lists without brackets and quotes."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
