"""Scores models on a suite: one after the other, set by set; what is done is not done again."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data_modules.readers import source_fingerprint
from lit_sft.evaluation.answers import answer_prompts, score_answers
from lit_sft.evaluation.choices import content_hash, read_choices, score_choices
from lit_sft.evaluation.harness import score_task
from lit_sft.evaluation.perplexity import score_conversations, score_texts
from lit_sft.evaluation.records import Scored, Skipped
from lit_sft.evaluation.results import Results, SetResult, read_set, write_set
from lit_sft.evaluation.subject import Subject
from lit_sft.evaluation.suite import AnySet, ChoiceSet, HarnessSet, PromptSet, Suite
from lit_sft.reporting.files import digest

_VERSION = 1
"""Raised whenever the same model and items would be scored otherwise, so that no stale scores are read."""

_SCORERS: dict[str, Callable[[Subject, Any, Skipped], Iterator[Scored]]] = {
    "text": score_texts,
    "conversations": score_conversations,
    "choices": score_choices,
    "harness": score_task,
    "answers": score_answers,
    "prompts": answer_prompts,
}


def evaluate(
    suite: Suite, models: Mapping[str, Callable[[], Subject]], folder: Path, say: Callable[[str], None]
) -> Results:
    """Score every model on every set. What fails costs itself alone.

    Args:
        suite: The sets.
        models: By name, the baseline first: what loads each.
        folder: `<folder>/<model>/<set>.jsonl` is written for each; what stands there of the same model is kept.
        say: Told of what is done and what fails.
    """
    results = Results(list(models))
    for name, load in models.items():
        try:
            subject = load()
        except (ValueError, OSError, torch.OutOfMemoryError) as error:
            results.failures[name] = str(error)
            say(f"{name}: {error}")
            continue
        identity = subject.digest()
        for kind, set_name, settings in suite.sets():
            try:
                result = _known_or_scored(subject, identity, kind, set_name, settings, folder / slug(name))
            except (ValueError, OSError, RuntimeError) as error:
                results.failures[f"{name}, {set_name}"] = _first_line(error)
                say(f"{name}, {set_name}: {_first_line(error)}")
                continue
            results.results[name, set_name] = result
            more = f", {len(result.skipped)} left out" if result.skipped else ""
            say(f"{name}, {set_name}: {len(result.rows):,} items in {result.seconds:.0f} s{more}")
        del subject
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results


def slug(name: str) -> str:
    """A model's name as a folder."""
    return re.sub(r"[^\w.=+-]+", "_", name).strip("_.") or "model"


def score_set(subject: Subject, kind: str, name: str, settings: AnySet) -> SetResult:
    """Score a model on a set.

    Raises:
        ValueError: If no item can be scored.
    """
    skipped, rows, began = Skipped(), {}, time.perf_counter()
    scored = _SCORERS[kind](subject, settings, skipped)
    for row in tqdm(scored, desc=f"{subject.name}, {name}", unit=" items", disable=None, leave=False):
        rows[row.item] = row
    if not rows:
        raise ValueError(f"no item could be scored ({'; '.join(skipped.reasons[:3])}).")
    return SetResult(kind, rows, skipped.reasons, time.perf_counter() - began)


def _known_or_scored(subject: Subject, identity: str, kind: str, name: str, settings: AnySet, place: Path) -> SetResult:
    dtype = str(next(subject.backbone.parameters()).dtype)
    key = digest([_VERSION, identity, dtype, kind, asdict(settings), _content(settings)])
    known = read_set(place, name, key)
    if known is None:
        known = score_set(subject, kind, name, settings)
        write_set(place, name, key, known)
    return known


def _content(settings: AnySet) -> Any:
    """What the items of a set are, apart from its settings."""
    if isinstance(settings, ChoiceSet):
        return content_hash(read_choices(settings.data)[0])
    if isinstance(settings, HarnessSet):
        return source_fingerprint(settings.include) if settings.include and _has_data(settings.include) else None
    if isinstance(settings, PromptSet):
        return None
    files = [settings.data] if isinstance(settings.data, str) else settings.data
    return [source_fingerprint(file) for file in files]


def _has_data(folder: str) -> bool:
    return any(Path(folder).glob("*.json*"))


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
