"""The tables of a study's report."""

from __future__ import annotations

import math
from typing import Literal

from data_modules.rendering.templates import TEMPLATES
from lit_sft.ablation.comparison import ArmDifference, Comparison, Findings, shared_name
from lit_sft.ablation.run_files import ANSWER_METRICS, BITS_PER_BYTE, PREFERENCE_ACCURACY
from lit_sft.reporting.formatting import (
    GLOSSARY,
    change_of,
    interval_notes,
    title_of,
    value_of,
    value_with_error,
)
from lit_sft.reporting.page import Cell, Finding, Table

_MOST_METRICS = 5
_MOST_ANSWERS = 5
_HEADLINE = (
    "answer",
    BITS_PER_BYTE,
    PREFERENCE_ACCURACY,
    "exact_match",
    "rougeL_mixed",
    "ended",
    "first_answer_token",
    "user",
    "whole_sequence",
)
"""Metrics of the first table, after the one that the study asks about."""


def headline(found: Findings, primary: str) -> Table | None:
    """The few metrics that matter: a row for each, a column for each arm."""
    comparison = found.comparison
    names = _headline_metrics(found, primary)
    if not names:
        return None
    differences = {(each.name, each.arm): each for each in found.differences}
    rows = [
        [
            title_of(shared_name(metric)),
            *(_headline_cell(found, metric, arm, differences.get((metric, arm))) for arm in comparison.arms),
        ]
        for metric in names
    ]
    return Table("The metrics that matter", ["", *comparison.arms], rows, _headline_notes(found, names))


def _headline_metrics(found: Findings, primary: str) -> list[str]:
    """Up to five, skipping losses with the same values as an earlier one: masks may cover the same tokens."""
    chosen: dict[tuple[str, tuple[float, ...]], str] = {}
    others = set(found.comparison.arms[1:])
    for metric in dict.fromkeys((primary, *_HEADLINE)):
        refused = {arm for name, arm, _ in found.refused if name == metric}
        if others and others <= refused:  # compared with none: such as the loss per token of different tokenizers
            continue
        if means := found.means.get(metric):
            kind = metric if metric in (*ANSWER_METRICS, PREFERENCE_ACCURACY) else "loss"
            chosen.setdefault((kind, tuple(mean.value for mean, _ in means.values())), metric)
    return list(chosen.values())[:_MOST_METRICS]


def _headline_cell(found: Findings, metric: str, arm: str, difference: ArmDifference | None) -> Cell:
    if arm not in found.means[metric]:
        return ""
    name, mean = shared_name(metric), found.means[metric][arm][0].value
    if (metric, arm) in {(refused, its_arm) for refused, its_arm, _ in found.refused}:
        return f"{value_of(name, mean, 3)} (not comparable)"
    if difference is None or not math.isfinite(mean):
        return value_of(name, mean, 3)
    change = change_of(name, difference.estimate.value, 3) if difference.estimate.value else ""
    text = f"{value_of(name, mean, 3)} ({', '.join(filter(None, (change, difference.verdict)))})"
    return Finding(text, difference.colour)


def _headline_notes(found: Findings, names: list[str]) -> list[str]:
    counts = [mean for name in names for mean, _ in found.means[name].values()]
    records = sorted({mean.num_rows for mean in counts})
    seeds = sorted({mean.num_seeds for mean in counts})
    base = found.comparison.baseline
    size = (
        f"Means over {_range(seeds)} {_plural('seed', seeds)} and {_range(records)} test {_plural('record', records)}."
    )
    return [
        f"{size} In brackets: the difference from “{base}” (in percentage points for percentages); better and "
        "worse are differences beyond noise (p < 0.05, adjusted for the number of arms).",
        *(
            GLOSSARY[name]
            for name in ("nll", BITS_PER_BYTE, "rougeL_mixed", PREFERENCE_ACCURACY)
            if any(shared_name(n).startswith(name) for n in names)
        ),
    ]


def _range(counts: list[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _plural(noun: str, counts: list[int]) -> str:
    return noun if counts == [1] else f"{noun}s"


def checks(comparison: Comparison) -> Table:
    """What must be the same in all arms to compare them in pairs."""
    rows: list[list[Cell]] = [[check.what, check.holds, check.why] for check in comparison.checks()]
    return Table("Is the comparison fair? What all arms of a seed share", ["", "holds", "why"], rows)


def means(found: Findings, metrics: list[str], title: str, unit: str) -> Table:
    """A row for each metric, a column for each arm, and what each mean is taken over."""
    rows: list[list[Cell]] = []
    arms = found.comparison.arms
    for metric in metrics:
        cells = [found.means[metric].get(arm) for arm in arms]
        name = shared_name(metric)
        weight = "bytes" if metric == BITS_PER_BYTE else unit
        over = [f"{cell[1]:,.0f} {weight}, {cell[0].num_rows:,} records" for cell in cells if cell]
        rows.append(
            [
                title_of(name),
                *(value_with_error(name, cell[0]) if cell else "" for cell in cells),
                "; ".join(dict.fromkeys(over)),
            ]
        )
    notes = interval_notes("seeds and test records", rows)
    if unit == "tokens":
        notes.append("Compare within a row: each row averages over different tokens.")
    return Table(title, ["", *arms, "over"], rows, notes)


def differences(found: Findings, metrics: list[str], title: str) -> Table:
    """Every difference from the baseline, with both values."""
    base = found.comparison.baseline
    rows: list[list[Cell]] = []
    for each in found.differences:
        if each.name in metrics:
            rows.append([each.arm, title_of(each.metric), *each.cells(), str(each.estimate.num_seeds), each.finding])
    header = [
        "arm",
        "metric",
        base,
        "arm's value",
        "difference",
        "95 % interval",
        "p",
        "p, adjusted",
        "seeds",
        "verdict",
    ]
    notes = [
        f"Both values are over the seeds and records that the arm and “{base}” share. p is two-sided; the adjusted p "
        "(Holm's method) allows for the number of arms compared."
    ]
    return Table(f"{title} “{base}”", header, rows, notes)


def costs(comparison: Comparison) -> Table:
    """The cost of each arm's training."""
    names = ["steps", "examples", "tokens", "supervised tokens", "training seconds", "tokens/s", "peak memory"]
    rows: list[list[Cell]] = []
    for arm in comparison.arms:
        records = [comparison.results[arm, seed].record for seed in comparison.seeds(arm)]
        if not records or not all(records):
            continue
        mean = {
            key: sum(r[key] for r in records) / len(records)
            for key in ("step", "examples", "tokens", "supervised_tokens", "seconds", "peak_bytes")
        }
        counts = [_count(mean[key]) for key in ("step", "examples", "tokens", "supervised_tokens", "seconds")]
        memory = f"{mean['peak_bytes'] / 1e9:.2f} GB" if math.isfinite(mean["peak_bytes"]) else ""
        rows.append([arm, *counts, _count(mean["tokens"] / max(mean["seconds"], 1e-9)), memory])
    return Table("Training cost, mean over seeds", ["", *names], rows)


def _count(number: float) -> str:
    return f"{number:,.0f}" if math.isfinite(number) else ""


def ledger(comparison: Comparison) -> Table:
    """What happened to the training records of each arm."""
    names = (
        "records_read",
        "left_out",
        "invalid",
        "duplicates",
        "dropped",
        "truncated",
        "split",
        "examples",
        "supervised_tokens_lost",
    )
    rows: list[list[Cell]] = []
    for arm in comparison.arms:
        if not comparison.seeds(arm):
            continue
        result = comparison.results[arm, comparison.seeds(arm)[0]].result
        train = (result.get("ledger") or {}).get("train") or {}
        values = [train.get(name, "") for name in names]
        # some counts are by mask, some are objects with a count and messages
        cells = [str(v.get(result.get("mask"), v.get("count", "")) if isinstance(v, dict) else v) for v in values]
        rows.append([arm, *cells])
    return Table("Training records", ["", *(name.replace("_", " ") for name in names)], rows)


def damaged(comparison: Comparison) -> list[list[Cell]]:
    """Trials with lines that could not be read."""
    return [
        [f"{arm}, seed {seed}", _unreadable(result.damaged)]
        for (arm, seed), result in comparison.results.items()
        if result.damaged
    ]


def _unreadable(lines: list[str]) -> str:
    if len(lines) == 1:
        return f"1 line could not be read: {lines[0]}"
    return f"{len(lines):,} lines could not be read, the first: {lines[0]}"


def answers(comparison: Comparison) -> list[Table]:
    """The arms' answers to test records and fixed prompts side by side, for the first seed that all arms have."""
    base = comparison.seeds(comparison.baseline)
    arms = comparison.arms
    seed = next((seed for seed in base if all((arm, seed) in comparison.results for arm in arms)), None)
    if seed is None:
        return []
    trials = [comparison.results[arm, seed] for arm in arms]
    origins = [origin for origin in trials[0].answers if all(origin in trial.answers for trial in trials)]
    shown = origins[:_MOST_ANSWERS]
    rows: list[list[Cell]] = [
        [origin, trials[0].answers[origin][0], *(trial.answers[origin][1] for trial in trials)] for origin in shown
    ]
    prompts = [prompt for prompt in trials[0].samples if all(prompt in trial.samples for trial in trials)]
    samples: list[list[Cell]] = [
        [_question(prompt), *(trial.samples[prompt] for trial in trials)] for prompt in prompts
    ]
    title = f"Answers to test records, seed {seed}"
    more = [f"The first {len(shown)} of {len(origins):,} that were generated."] if len(origins) > len(shown) else []
    return [
        Table(title, ["record", "reference", *arms], rows, more, is_text=True),
        Table(
            f"Answers to fixed prompts at the end of training, seed {seed}", ["prompt", *arms], samples, is_text=True
        ),
    ]


def _question(prompt: str) -> str:
    """The user's message of a rendered prompt; the prompt itself if it has several, or an unknown template."""
    for template in TEMPLATES.values():
        header, _, ending = f"{template.opening}{template.user}".partition("{user}")
        question = prompt.removeprefix(header).removesuffix(ending)
        if prompt == f"{header}{question}{ending}" and ending not in question:
            return question
    return prompt


def blocks(comparison: Comparison) -> Table:
    """What the training blocks of each arm lose; no rows unless the arms are text runs."""
    names = ("blocks", "documents_cut", "documents_dropped", "sentences_cut", "tokens", "kept", "cropped", "padding")
    rows: list[list[Cell]] = []
    for arm in comparison.arms:
        for seed in comparison.seeds(arm)[:1]:
            train = (comparison.results[arm, seed].result.get("ledger") or {}).get("train") or {}
            if counts := train.get("blocks"):
                rows.append([arm, *(f"{counts.get(name, 0):,}" for name in names)])
    notes = ["Cropped tokens are in no block; padding is how many tokens the blocks fall short of full size."]
    return Table("Training blocks", ["", *(name.replace("_", " ") for name in names)], rows, notes)


def metrics_of(found: Findings, kind: Literal["losses", "answers", "pairs"]) -> list[str]:
    """The losses, the metrics of generated answers, or those of preference pairs."""
    kinds = dict.fromkeys(ANSWER_METRICS, "answers") | {PREFERENCE_ACCURACY: "pairs"}
    return [name for name in found.means if kinds.get(name, "losses") == kind]
