"""Makes instruction data in a folder, from Python: asks, checks, writes; continues where an earlier process stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.records.splits import as_list
from data_modules.wording import counted
from lit_sft.credentials import read_address
from lit_sft.endpoint.chat import Request
from lit_sft.endpoint.journal import Journal
from lit_sft.endpoint.paid_model import PaidModel, open_endpoint, shown_variable
from lit_sft.endpoint.prices import Budget
from lit_sft.files import read_json, write_json, write_text
from lit_sft.locks import FileLock
from lit_sft.output_files import check_outputs
from lit_sft.runs.opening import open_model
from lit_sft.synthesis.checks.asking import Ask
from lit_sft.synthesis.checks.checks import Checks, read_checks
from lit_sft.synthesis.earlier import compare_with_earlier
from lit_sft.synthesis.limits import contradictions, with_room_for
from lit_sft.synthesis.local_model import LocalModel
from lit_sft.synthesis.pipeline import Synthesis, in_order
from lit_sft.synthesis.reading import Subjects
from lit_sft.synthesis.recipe import Recipe, read_recipe
from lit_sft.synthesis.report import DATASHEET, REPORT, write_report
from lit_sft.synthesis.results import CONFIG, FAILED, JOURNAL, PAIRS, REFUSED, SUMMARY, Results, written_whole
from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.trial import Trial


def synthesize(settings: SynthesisSettings, *, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Make conversations, and write them with a summary.

    A folder that has replies is continued: they are used again, and only what is missing is asked for.

    Args:
        settings: What to make, and how.
        log: Prints a line about trouble.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UserError: If a setting is wrong, a file cannot be read, or another process uses the folder.
        NothingNewError: If no conversation was made, and the folder has earlier pairs, which stay.
    """
    recipe = read_recipe(settings.recipe).with_limits(settings.limits)
    subjects = Subjects(settings, recipe)
    rules = _rules(settings, recipe, log)
    folder = Path(settings.output)
    check_outputs({"--output": settings.output}, _sources(settings))
    _check_own(folder)
    with _locked(folder), opened_model(settings, Journal(folder / JOURNAL), log) as model:
        checks = Checks(rules, _asking(model, settings.model.max_tokens))
        count = subjects.count()
        _warn_of_unproven(subjects, count, log)
        synthesis = Synthesis(recipe, model, checks, settings.model, settings.attempts, settings.seed)
        with written_whole(folder, PAIRS, REFUSED, FAILED) as streams:
            results = Results(recipe, checks, settings.model, streams)
            trial = Trial(synthesis.outcome, recipe.subject)
            outcomes = in_order(trial.outcome, trial.numbered(subjects), requests=settings.model.concurrency)
            for outcome in with_progress(outcomes, "synthesis", f"{recipe.subject}s", count):
                results.add(outcome)
            model.conclude()
            if model.stopped:
                results.count_unanswered_as_not_reached()
            stopped = model.stopped or trial.stopped or _offline(settings, results)
            compare_with_earlier(folder, results, settings_shown(settings), stopped, log)
        summary = {**_summary(settings, recipe, results, subjects, model), "stopped": stopped}
        config = yaml.safe_dump(settings_shown(settings), allow_unicode=True, sort_keys=False)
        write_text(folder / CONFIG, config)
        write_json(folder / SUMMARY, summary)
        write_report(folder)
    return summary


@contextmanager
def opened_model(settings: SynthesisSettings, journal: Journal, log: Callable[[str], None]) -> Iterator[PaidModel]:
    """Open the model that writes, with its journal; closed after the block.

    Raises:
        UserError: If it cannot be opened.
    """
    if journal.damage:
        log(journal.damage)
    own = settings.model
    local: LocalModel | None = None
    if own.path is None:
        budget = Budget(settings.max_cost, own.prices.currency)
        model = open_endpoint(own.of_endpoint(), journal, budget=budget, offline=settings.offline, log=log)
    else:
        if settings.max_cost is not None:
            raise UserError("--max_cost: a local model costs nothing; remove the setting.")
        loaded = open_model(own.title, own.path, device=own.device)
        place = f"weights {loaded.digest()}"
        local = None if settings.offline else LocalModel(loaded, own.concurrency)
        model = PaidModel(local, journal, place=place, model=own.title)
    try:
        yield model
    finally:
        model.close()
        if local is not None:
            local.close()
        journal.close()


def _rules(settings: SynthesisSettings, recipe: Recipe, log: Callable[[str], None]) -> list[tuple[str, Any]]:
    """The rules of the settings, else those of the recipe, which make room for higher limits."""
    languages = recipe.languages if settings.language == "auto" else [settings.language]
    if settings.checks is None:
        rules = read_checks(recipe.checks, f"recipe {recipe.name}: checks")
        return with_room_for(settings.limits, rules, languages)
    rules = read_checks(settings.checks, "--checks")
    for line in contradictions(settings.limits, rules, languages):
        log(line)
    return rules


def _asking(model: PaidModel, max_tokens: int) -> Ask:
    """Sends the messages of a check to the model, which may have to think before it answers."""
    return lambda messages: model.ask(Request(messages, max_tokens=max_tokens)).text


def _warn_of_unproven(subjects: Subjects, count: int, log: Callable[[str], None]) -> None:
    if subjects.num_unproven:
        log(
            f"--records: no `text_digest` in the provenance of {subjects.num_unproven:,} of "
            f"{counted(count, subjects.recipe.subject)}, so it goes unnoticed if their articles have changed; make "
            "sure that --articles are the files that they were made from."
        )


def _offline(settings: SynthesisSettings, results: Results) -> str:
    """Why subjects were not reached although no request failed; empty if all were."""
    if not settings.offline or not results.subjects["not_reached"]:
        return ""
    lacking = results.of_subjects(results.num_unanswered)
    return (
        f"--offline true: the journal lacks replies for {lacking} with these settings; remove `--offline true` to "
        "request the rest."
    )


def _summary(
    settings: SynthesisSettings, recipe: Recipe, results: Results, subjects: Subjects, model: PaidModel
) -> dict[str, Any]:
    usage = model.usage()
    accepted = results.pairs["accepted"]
    return {
        "recipe": {"name": recipe.name, "about": recipe.about, "digest": recipe.digest, "language": settings.language},
        "subject": recipe.subject,
        "model": _model(settings.model),
        "sources": _sources(settings),
        "settings": settings_shown(settings),
        **results.as_dict(),
        "invalid_records": {"count": subjects.counts.num_invalid, "first": subjects.counts.invalid[:3]},
        "unused_fields": {file: dict(names) for file, names in subjects.counts.unknown_fields.items()},
        "usage": asdict(usage),
        "prices": asdict(settings.model.prices) if settings.model.prices.is_known else None,
        "cost_per_accepted": usage.cost / accepted if usage.cost is not None and accepted else None,
    }


def _sources(settings: SynthesisSettings) -> list[str]:
    return [*as_list(settings.articles), *as_list(settings.records)]


def _check_own(folder: Path) -> None:
    """Refuse a folder of something else, such as a run, whose files would be replaced."""
    if not folder.is_dir() or (folder / JOURNAL).is_file() or "recipe" in (read_json(folder / SUMMARY) or {}):
        return
    for name in (PAIRS, REFUSED, FAILED, SUMMARY, REPORT, DATASHEET, CONFIG):
        if (folder / name).exists():
            raise UserError(
                f"--output {folder}: has a {name} that `synthesize` did not write, and that it would replace; choose "
                "another folder."
            )


def _model(model: ModelSettings) -> dict[str, Any]:
    """What decides what the model writes."""
    place = model.path if model.endpoint is None else _without_secrets(model.endpoint)
    sampling = {"temperature": model.temperature, "top_p": model.top_p, "max_tokens": model.max_tokens}
    return {"name": model.title, "place": place, **sampling}


def settings_shown(settings: SynthesisSettings) -> dict[str, Any]:
    """All settings as plain values, without credentials."""
    values = asdict(settings)
    values["model"]["key_variable"] = shown_variable(settings.model.key_variable)
    if settings.model.endpoint is not None:
        values["model"]["endpoint"] = _without_secrets(settings.model.endpoint)
    return values


def _without_secrets(endpoint: str) -> str:
    return read_address(endpoint, setting="--model.endpoint").base


def _locked(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(
            folder / "synthesis.lock", lambda owner: f"{folder}: in use by {owner}. Wait for it to end, or stop it."
        )
    except OSError as error:
        raise UserError(f"--output {folder}: cannot write there ({error.strerror}); choose another folder.") from None
