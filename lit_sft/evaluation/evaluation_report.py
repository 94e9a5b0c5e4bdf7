"""The page of an evaluation: what changed and how sure that is, answers side by side, and all the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from lit_sft.evaluation import report_tables
from lit_sft.evaluation.change_charts import draw_changes, draw_headline
from lit_sft.evaluation.contamination import Exposure, Items, in_words
from lit_sft.evaluation.exports import write_results, write_table
from lit_sft.evaluation.item_results import Change, Results, compare, compared
from lit_sft.evaluation.suite import Suite
from lit_sft.evaluation.win_rate import AllVerdicts
from lit_sft.reporting.formatting import (
    difference_of,
    digits_of,
    interval_of,
    label_of,
    p_of,
    title_of,
    value_with_error,
)
from lit_sft.reporting.page import Report

_MOST_SENTENCES = 5


def make_report(
    suite: Suite,
    results: Results,
    folder: Path,
    *,
    about: list[str],
    seen: Items | None = None,
    judgings: AllVerdicts | None = None,
    exposures: Mapping[str, Exposure] | None = None,
) -> Report:
    """Lay out the findings; draws the pictures and writes the numbers to report.csv and results.json.

    Args:
        suite: What was asked.
        results: What was scored.
        folder: Where to write.
        about: What is known about the models, one fact per line.
        seen: Items that appear in the suite's training files, by set.
        judgings: A judge's verdicts, by model and set.
        exposures: What was found in the models' own training data, by model.
    """
    changes, refused = compare(results)
    seen, exposures, judgings = seen or {}, exposures or {}, judgings or {}
    write_table(folder / "report.csv", results, changes)
    write_results(folder / "results.json", suite, results, changes, judgings, exposures)
    sides = [
        report_tables.side_by_side(results, name)
        for name in results.sets
        if results.kind(name) in ("prompts", "answers")
    ]
    tables = [
        report_tables.changes_table(results, [change for change in changes if not change.group], "Every change from"),
        report_tables.win_rates(judgings),
        report_tables.exposure_table(suite, results, exposures, seen),
        report_tables.seen_table(results, report_tables.all_seen(seen, exposures)),
        *(report_tables.metrics(results, name) for name in results.sets),
        report_tables.counts(results, changes),
        report_tables.changes_table(
            results, [change for change in changes if change.group], "Parts of sets: change from"
        ),
        report_tables.published_table(suite),
        report_tables.costs(results),
        report_tables.failures(results, refused),
    ]
    return Report(
        question=suite.question,
        answers=[*_in_words(results, changes), *in_words(results, exposures)],
        design=about,
        tables=[table for table in tables if table.rows],
        charts=_charts(results, changes, folder),
        headline=report_tables.headline(results, changes),
        examples=[table for table in sides if table.rows],
    )


def _charts(results: Results, changes: list[Change], folder: Path) -> list[tuple[str, Path]]:
    accuracies = [change for change in changes if results.kind(change.set) in ("choices", "harness")]
    means = [
        (f"{name}: {title_of(metric)}", metric, {m: results.mean(m, name, metric) for m in results.models})
        for name, metric in report_tables.headline_metrics(results)
    ]
    charts = [
        ("The metrics that matter, with 95 % intervals over the items", draw_headline(means, folder / "metrics.png")),
        ("Change in accuracy by set or part, with 95 % intervals", draw_changes(accuracies, folder / "changes.png")),
    ]
    return [(title, path) for title, path in charts if path is not None]


def _in_words(results: Results, changes: list[Change]) -> list[str]:
    lines = _alone(results) if len(results.models) == 1 else []
    for model in results.models[1:]:
        lines += _compared(results, model, [change for change in changes if change.model == model and not change.group])
    if results.failures:
        lines.append("Some models or sets could not be scored or compared; see “Not scored or not compared”.")
    return lines


def _alone(results: Results) -> list[str]:
    """What a single model scored."""
    (model,) = results.models
    scores = []
    firsts = dict(reversed(report_tables.headline_metrics(results)))
    for name, metric in reversed(firsts.items()):
        if mean := results.mean(model, name, metric):
            scores.append(f"{label_of(metric)} on “{name}” {value_with_error(metric, mean, 3)}")
    found = f"“{model}”: {'; '.join(scores)}." if scores else f"“{model}” was scored."
    return [f"{found} Add a second model to --models to see what changed."]


def _compared(results: Results, model: str, own: list[Change]) -> list[str]:
    """What changed from the first model to another, the metrics that matter first."""
    base = results.models[0]
    if not own:
        is_asked = any(compared(results, name) for name in results.sets)
        why = "; see “Not scored or not compared”" if is_asked else ": nothing in this suite can be compared"
        return [f"“{model}” is not compared with “{base}”{why}."]
    ranked = report_tables.ranked_metrics(results)
    found = [change for change in own if change.is_found and change.sense]
    found.sort(key=lambda change: ranked.index((change.set, change.metric)))
    better, worse = (sum(change.sense == sign for change in found) for sign in (1, -1))
    unknown = sum(math.isnan(change.adjusted_p) for change in own)
    rest = len(own) - better - worse - unknown
    last = f", and {unknown} cannot be tested" if unknown else ""
    lines = [
        f"Against “{base}”, “{model}” is better in {better} and worse in {worse} of {len(own)} comparisons; "
        f"{rest} {'is' if rest == 1 else 'are'} within noise{last}."
    ]
    lines += [_sentence(change) for change in found[:_MOST_SENTENCES]]
    if more := len(found) - _MOST_SENTENCES:
        lines += (
            [f"{more} more {'difference is' if more == 1 else 'differences are'} listed in the details below."]
            if more > 0
            else []
        )
    return lines


def _sentence(change: Change) -> str:
    amount = difference_of(change.metric, change.before, change.after)
    interval = interval_of(change.metric, change.estimate, digits_of(change.before, change.after))
    sure = f"95 % interval of the change {interval}; " if interval else ""
    p = p_of(change.adjusted_p, is_sentence=True)
    return f"“{change.model}” is {change.verdict} on “{change.set}”: {amount} ({sure}p {p})."
