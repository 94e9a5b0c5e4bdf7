"""Scores models on a suite, one set at a time; existing scores are reused."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from data_modules.digests import file_digest
from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.records.readers import source_fingerprint
from lit_sft.evaluation.answers import answer_prompts, score_answers
from lit_sft.evaluation.choices import score_choices, text_of
from lit_sft.evaluation.harness import harness_version, score_task
from lit_sft.evaluation.item_results import Results, SetResult, read_set, write_set
from lit_sft.evaluation.scores import Scored, Skipped
from lit_sft.evaluation.suite import AnySet, ChoiceSet, HarnessSet, PromptSet, Suite
from lit_sft.evaluation.text_perplexity import score_conversations, score_texts
from lit_sft.failures import reason_of_part
from lit_sft.files import digest, slug
from lit_sft.models.loaded import LoadedModel
from lit_sft.printable import printable

_VERSION = 2
"""Bump when scoring changes, so that stale scores are not reused."""

_SCORERS: dict[str, Callable[[LoadedModel, Any, Skipped], Iterator[Scored]]] = {
    "text": score_texts,
    "conversations": score_conversations,
    "choices": score_choices,
    "answers": score_answers,
    "prompts": answer_prompts,
}


def evaluate(
    suite: Suite,
    models: Mapping[str, Callable[[], LoadedModel]],
    folder: Path,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    allow_code: Sequence[str] = (),
) -> Results:
    """Score every model on every set. One failure does not affect the others; see `reason_of_part`.

    Args:
        suite: The sets.
        models: Functions that load each model, by name, the baseline first.
        folder: `<folder>/<model>/<set>.jsonl` is written for each; scores of the same model and items are reused.
        log: Prints a line.
        warn: Prints a line about what could not be scored.
        allow_code: Folders of lm-eval tasks whose code may run.
    """
    results = Results(list(models))
    for name, load in models.items():
        try:
            model = load()
            identity = results.digests[name] = model.digest()
            results.about[name] = model.about()
        except Exception as error:  # the other models are scored anyway
            results.failures[name] = reason_of_part(error, folder)
            warn(f"{name}: {results.failures[name]}")
            continue
        for kind, set_name, settings in suite.sets():
            try:
                place = folder / slug(name, "model")
                result, is_known = _known_or_scored(model, identity, kind, set_name, settings, place, allow_code)
            except Exception as error:  # the other sets are scored anyway
                reason = results.failures[f"{name}, {set_name}"] = reason_of_part(error, folder)
                warn(f"{name}, {set_name}: {reason}")
                continue
            results.results[name, set_name] = result
            more = f", {result.num_skipped:,} skipped" if result.num_skipped else ""
            how = "already scored" if is_known else f"in {result.seconds:.0f} s"
            log(f"{name}, {set_name}: {len(result.rows):,} items {how}{more}")
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results


def score_set(model: LoadedModel, kind: str, name: str, settings: AnySet, allow_code: Sequence[str] = ()) -> SetResult:
    """Score a model on a set. lm-eval tasks in `allow_code` may run their own code.

    Raises:
        UserError: If no item can be scored.
    """
    skipped, began = Skipped(), time.perf_counter()
    rows: dict[str, Scored] = {}
    if isinstance(settings, HarnessSet):
        scored = score_task(model, settings, skipped, allow_code=allow_code)
    else:
        scored = _SCORERS[kind](model, settings, skipped)
    for row in with_progress(scored, printable(f"{model.name}, {name}"), "items"):
        if row.item in rows:
            skipped.add(f"{row.item}: duplicate name; only the first item is scored.")
            continue
        rows[row.item] = row.with_means(skipped)
    if not rows:
        raise UserError(f"no item could be scored; {skipped.count:,} skipped ({'; '.join(skipped.reasons[:3])}).")
    more = skipped.count - len(skipped.reasons)
    return SetResult(kind, rows, skipped.reasons, time.perf_counter() - began, more)


def _known_or_scored(
    model: LoadedModel,
    identity: str,
    kind: str,
    name: str,
    settings: AnySet,
    place: Path,
    allow_code: Sequence[str],
) -> tuple[SetResult, bool]:
    dtype = str(next(model.backbone.parameters()).dtype)
    key = digest([_VERSION, identity, dtype, kind, _described(settings), _content(settings)])
    known = read_set(place, name, key)
    if known is not None:
        return known, True
    scored = score_set(model, kind, name, settings, allow_code)
    write_set(place, name, key, scored)
    return scored, False


def _described(settings: AnySet) -> dict[str, Any]:
    """The settings that a score depends on; columns only if given, so that earlier scores remain valid."""
    return {name: value for name, value in asdict(settings).items() if name != "columns" or value}


def _content(settings: AnySet) -> Any:
    """The content behind a set's settings, such as digests of its files."""
    if isinstance(settings, ChoiceSet):
        return text_of(settings.data)
    if isinstance(settings, HarnessSet):
        folder = sorted(Path(settings.include).rglob("*")) if settings.include else []
        return [harness_version(), [[str(file), file_digest(file)] for file in folder if file.is_file()]]
    if isinstance(settings, PromptSet):
        return None
    files = [settings.data] if isinstance(settings.data, str) else settings.data
    return [source_fingerprint(file) for file in files]
