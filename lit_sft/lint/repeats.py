"""Reports conversations that occur twice, with their places: the second pass over the records."""

from __future__ import annotations

from collections.abc import Iterable

from data_modules.records.conversation import Conversation
from lit_sft.lint.duplicates import (
    MOST_CONVERSATIONS,
    THRESHOLD,
    DuplicateIndex,
    Likeness,
    Pair,
    Traits,
    are_alike,
    traits_of,
)
from lit_sft.lint.findings import EXAMPLES, Findings

RULE_OF: dict[Likeness, str] = {
    "exact": "duplicate",
    "normalized": "duplicate-normalised",
    "prompt": "contradictory-answers",
    "near": "near-duplicate",
}

_IN_COMMON: dict[Likeness, str] = {
    "exact": "the same conversation as",
    "normalized": "the same words as",
    "prompt": "the same prompt, with another answer, as",
    "near": f"at least {THRESHOLD:.0%} of the text in common with",
}


def report_repeats(index: DuplicateIndex, again: Iterable[Conversation], findings: Findings) -> None:
    """Report the repeats of an index. Each conversation repeats at most one other: in the strongest way.

    Args:
        index: Every conversation, in reading order.
        again: The conversations in the same order; read up to the last one that is needed.
        findings: Where to report.
    """
    if index.is_full:
        findings.skip(RULE_OF.values(), f"only for the first {MOST_CONVERSATIONS:,} conversations")
    candidates = index.candidates()
    exact = [pair for pair in candidates if pair.likeness == "exact"]
    shown = {pair for in_one_split in (True, False) for pair in _of(exact, in_one_split)[:EXAMPLES]}
    for pair in exact:
        if pair not in shown:
            findings.count("duplicate" if pair.in_one_split else "split-leak")
    compared = [pair for pair in candidates if pair.likeness != "exact" or pair in shown]
    traits = _read(again, {number for pair in compared for number in (pair.earlier, pair.later)})
    done: set[int] = set()
    for pair in compared:
        earlier, later = traits[pair.earlier], traits[pair.later]
        if pair.later in done or not are_alike(pair.likeness, earlier, later):
            continue
        done.add(pair.later)
        # similar texts in two splits are common in templated data, and no leak by themselves
        rule = RULE_OF[pair.likeness] if pair.in_one_split or pair.likeness == "near" else "split-leak"
        others = "" if pair.in_one_split else ", which is in another split"
        findings.add(rule, later.origin, f"{_IN_COMMON[pair.likeness]} {earlier.origin}{others}", later.question)


def _of(pairs: list[Pair], in_one_split: bool) -> list[Pair]:
    return [pair for pair in pairs if pair.in_one_split == in_one_split]


def _read(conversations: Iterable[Conversation], wanted: set[int]) -> dict[int, Traits]:
    """The traits of the wanted conversations, by their number in reading order."""
    if not wanted:
        return {}
    last, found = max(wanted), {}
    for number, conversation in enumerate(conversations):
        if number in wanted:
            found[number] = traits_of(conversation)
        if number == last:
            break
    return found
