"""The pairs that a folder has when a synthesis starts: kept if it makes none, and said if it makes fewer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import counted, shortened
from lit_sft.files import read_json
from lit_sft.synthesis.pipeline import FAILED_REQUEST, NO_REPLY
from lit_sft.synthesis.results import JOURNAL, PAIRS, SUMMARY, Results

_SHOWN = 60

_OF_REQUESTS = ("concurrency", "device", "key_variable", "prices", "rate", "retries", "timeout")
_WITHOUT_EFFECT = ("output", "offline", "max_cost", *(f"model.{name}" for name in _OF_REQUESTS))
"""Settings that do not decide which pairs there are."""


class NothingNewError(UserError):
    """A synthesis that accepted no pair: replies are missing, or none is of use. Earlier files of the folder stay."""


def compare_with_earlier(
    folder: Path, results: Results, settings: Mapping[str, Any], stopped: str, log: Callable[[str], None]
) -> None:
    """Compare with the pairs that the folder has, which a start that makes none must not replace.

    No pair is a result like any other if the checks refuse what the model made: the page and the refused pairs say why.

    Args:
        folder: Where they are.
        results: What was made now.
        settings: The settings as the summary shows them.
        stopped: Why requests stopped; empty if they did not.
        log: Prints a line if there are fewer pairs than before.

    Raises:
        NothingNewError: If there are some, and now none because replies are missing or without the recipe's form.
    """
    now, path = results.pairs["accepted"], folder / PAIRS
    earlier = _num_pairs(path)
    if now >= earlier:
        return
    if not now and (why := _why_nothing(results, stopped)):
        raise NothingNewError(
            f"{why[0]}, so no pair was accepted; {path} keeps its {counted(earlier, 'earlier pair')}, and the other "
            f"files stay too. {why[1][0].upper()}{why[1][1:]}"
        )
    reasons = list(_reasons(results, folder, settings)) or ["the files, the recipe or the rules have changed"]
    log(
        f"{path}: had {counted(earlier, 'pair')}, has {now:,} now; {'; '.join(reasons)}. All replies are still in "
        f"{folder / JOURNAL}: the same files and settings as before give the earlier pairs again."
    )


def _num_pairs(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def _why_nothing(results: Results, stopped: str) -> tuple[str, str] | None:
    """What is the matter, and the reason, if nothing at all was made; else None."""
    if results.num_unanswered:
        why = stopped or f"the first failed request: {results.first_error}."
        return f"{results.of_subjects(results.num_unanswered)} lack replies", why
    if results.pairs["read"] or not results.failures:
        return None
    ((fault, _),) = results.failures.most_common(1)
    return f"every {results.recipe.subject} failed", f"most with {fault}: {results.first_reasons[fault]}"


def _reasons(results: Results, folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Why there may be fewer pairs."""
    before = _earlier_summary(folder)
    if results.num_unanswered:
        yield f"{results.of_subjects(results.num_unanswered)} lack replies"
    faults = {fault: num for fault, num in results.failures.items() if fault not in (FAILED_REQUEST, NO_REPLY)}
    if faults:
        most = max(faults, key=lambda each: faults[each])
        yield f"{results.of_subjects(sum(faults.values()))} failed, most with {most}"
    read, num_before = results.subjects["read"], before.get("subjects", {}).get("read", 0)
    if read < num_before:
        yield f"{counted(num_before, results.recipe.subject)} then, {read:,} now"
    if changed := _changed(before.get("settings", {}), settings):
        yield f"other settings: {', '.join(changed)}"


def _earlier_summary(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / SUMMARY) or {}
    except UserError:
        return {}  # a damaged one, which is replaced


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings with other values than before, with these."""
    flat_before, flat_now = (_flat(json.loads(json.dumps(values))) for values in (before, now))
    return [
        f"--{name} (was {shortened(json.dumps(flat_before[name], ensure_ascii=False), _SHOWN)})"
        for name, value in flat_now.items()
        if name in flat_before and name not in _WITHOUT_EFFECT and flat_before[name] != value
    ]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    model = values.get("model", {})
    return {name: value for name, value in values.items() if name != "model"} | {
        f"model.{name}": value for name, value in model.items()
    }
