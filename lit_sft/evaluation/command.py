"""`python -m lit_sft evaluate --models base=MODEL tuned=MODEL --suite FILE`: what did fine-tuning do to a model?"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from data_modules.errors import UserError
from lit_sft.console import print_line_on
from lit_sft.credentials import without_credentials
from lit_sft.evaluation.choices import content_hash, read_choices
from lit_sft.evaluation.contamination import Exposure, Items, find_exposure, find_seen, in_words
from lit_sft.evaluation.evaluate import evaluate
from lit_sft.evaluation.evaluation_report import write_pages
from lit_sft.evaluation.harness_code import check_tasks
from lit_sft.evaluation.item_results import Results
from lit_sft.evaluation.suite import ChoiceSet, JudgeSettings, Suite
from lit_sft.evaluation.suite_file import read_suite
from lit_sft.evaluation.training_data import training_data_of
from lit_sft.evaluation.win_rate import Judgings, judge_models
from lit_sft.failures import reason_of_part
from lit_sft.files import error_line, slug
from lit_sft.models.loaded import LoadedModel
from lit_sft.runs.opening import open_model
from lit_sft.settings.arguments import Arguments

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def main(argv: list[str]) -> None:
    """Evaluate models.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If the suite or an argument is wrong, or nothing could be scored.
        SystemExit: With 1 if a model or a set could not be scored, with 130 on Ctrl-C.
    """
    options = _parser().parse_args(argv[1:])
    suite, models = read_suite(options.suite, options.set), _models(options.models)
    for settings in suite.harness.values():
        if settings.include is not None:
            check_tasks(settings.include, options.allow_code)
    disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    log, warn = partial(print_line_on, Console()), partial(print_line_on, Console(stderr=True))
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    load = partial(open_model, template=suite.template, device=options.device, dtype=dtype)
    folder = Path(options.output or f"runs/evaluations/{suite.name}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        results, page = _run(suite, models, load, folder, log, warn, options.allow_code)
    except KeyboardInterrupt:
        log("stopped; finished sets and replies are kept. Run the same command again to continue.")
        raise SystemExit(130) from None
    log(f"report  {page}")
    if results.failures:
        raise SystemExit(1)


def _run(
    suite: Suite,
    models: dict[str, str],
    load: Callable[..., LoadedModel],
    folder: Path,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    allow_code: list[str],
) -> tuple[Results, Path]:
    """Score, judge, look for the items in the training records, and write the page."""
    loaders = {name: partial(load, name, source) for name, source in models.items()}
    results = evaluate(suite, loaders, folder / "items", log, warn, allow_code=allow_code)
    if not results.results:
        raise UserError(
            f"nothing could be scored; see the {'reasons' if len(results.failures) > 1 else 'reason'} above."
        )
    judgings: Judgings = {}
    try:
        if suite.judge is not None:
            judgings = judge_models(suite.judge, results, folder, log, load)
    except Exception as error:  # whatever it is, what has been scored is shown
        results.failures["judge"] = reason_of_part(error, folder)
        warn(f"judge: {results.failures['judge']}")
    exposures = _exposures(suite, models, results, log, warn)
    seen: Items = {}
    try:
        if suite.trained_on:
            seen = find_seen(suite, results, suite.trained_on)
    except (UserError, OSError) as error:
        results.failures["trained_on"] = error_line(error)
        warn(f"trained_on: {error_line(error)}")
    about = [
        *(f"“{name}”: {source}; {results.about.get(name, 'not loaded')}" for name, source in models.items()),
        *([_about_judge(suite.judge)] if suite.judge else []),
        f"Versions: {', '.join(f'{package} {version(package)}' for package in ('torch', 'transformers', 'peft'))}.",
        *_about_sets(suite),
    ]
    page = write_pages(suite, results, folder, about=about, seen=seen, judgings=judgings, exposures=exposures)
    return results, page


def _exposures(
    suite: Suite,
    models: dict[str, str],
    results: Results,
    log: Callable[[str], None],
    warn: Callable[[str], None],
) -> dict[str, Exposure]:
    """Where the models that are runs have seen the items, by model."""
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
        except (UserError, OSError) as error:
            warn(f"{name}, its training data: {error_line(error)}")
            continue
        log(f"{name}: trained on {found[name].data.said}")
        for line in in_words(results, name, found[name]):
            log(line)
    return found


def _models(given: list[str]) -> dict[str, str]:
    """Names to sources; the baseline first."""
    models: dict[str, str] = {}
    for text in given:
        name, is_named, source = text.partition("=")
        if not is_named or not name or not source:
            raise UserError(f"--models {text}: expected NAME=MODEL, such as base=gpt2 tuned=runs/quickstart/version_0.")
        if name in models:
            raise UserError(f"--models {text}: there is a model {name} already; give each a name of its own.")
        if _folder_key(name) in map(_folder_key, models):
            raise UserError(f"--models {text}: its folder would be that of another model; give it another name.")
        models[name] = os.path.expanduser(source)  # the shell does not, behind `NAME=`
    return models


def _folder_key(name: str) -> str:
    """Equal for names whose folders are one and the same on some file system, which may not tell cases apart."""
    return unicodedata.normalize("NFC", slug(name, "model")).casefold()


def _about_judge(judge: JudgeSettings) -> str:
    if judge.endpoint is not None:
        return f"Judge: {judge.model} at {without_credentials(judge.endpoint)}."
    return f"Judge: the likelihood of an answer under {judge.model}, which is no opinion on what is true."


def _about_sets(suite: Suite) -> list[str]:
    facts = []
    for _, name, settings in suite.sets():
        what = ", ".join(f"{key} {value}" for key, value in vars(settings).items() if value is not None)
        if isinstance(settings, ChoiceSet):
            try:
                what += f", content {content_hash(read_choices(settings.data)[0])}"
            except UserError:
                continue  # it is among what could not be scored
        facts.append(f"{name}: {what}")
    return facts


def _parser() -> Arguments:
    example = "--models base=gpt2 tuned=runs/quickstart/version_0 --suite configs/evaluate/quickstart.yaml"
    parser = Arguments("evaluate", __doc__, example=example)
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME=MODEL",
        help="the baseline first: a folder with a model or an adapter, a hub name, a run folder or a checkpoint",
    )
    parser.add_argument("--suite", required=True, help="what to score, such as configs/evaluate/quickstart.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the suite; repeatable"
    )
    parser.add_argument(
        "--allow_code",
        action="append",
        default=[],
        metavar="FOLDER",
        help="let lm-eval tasks of this folder run their Python functions; repeatable",
    )
    parser.add_argument("--output", help="where to write; default: runs/evaluations/<suite>")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; default: a GPU where there is one")
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="auto", help="of the weights; auto: bfloat16 on a GPU, else float32"
    )
    return parser
