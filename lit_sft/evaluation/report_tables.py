"""The tables of an evaluation's report."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from lit_sft.evaluation.contamination import Exposure, Items
from lit_sft.evaluation.item_results import Change, Results, compared
from lit_sft.evaluation.suite import REPORTS, Suite
from lit_sft.evaluation.win_rate import AllVerdicts, length_controlled_rate, rate
from lit_sft.files import read_yaml
from lit_sft.metrics.segments import perplexity
from lit_sft.reporting.formatting import (
    GLOSSARY,
    change_of,
    interval_notes,
    interval_of,
    title_of,
    value_of,
    value_with_error,
)
from lit_sft.reporting.page import Cell, Table

TRAINING_DATA = "training data"
"""With a model's name, the key in `Results.failures` of a search of its training data."""

_MOST_METRICS = 5
_SHOWN_ANSWERS = 5
_SHOWN_SKIPPED = 20


def ranked_metrics(results: Results) -> list[tuple[str, str]]:
    """Sets and their compared metrics by importance: the first metric of every set, then the second, and so on."""
    by_set = [[(name, metric) for metric in compared(results, name)] for name in results.sets]
    return [pair for rank in zip_longest(*by_set) for pair in rank if pair is not None]


def headline_metrics(results: Results) -> list[tuple[str, str]]:
    """The sets and metrics that matter most, up to five."""
    return ranked_metrics(results)[:_MOST_METRICS]


def headline(results: Results, changes: list[Change]) -> Table | None:
    """The metrics that matter: for one model, its means; for several, the change from the first to each."""
    chosen = headline_metrics(results)
    if not chosen:
        return None
    if len(results.models) == 1:
        rows = [_mean_row(results, *pair) for pair in chosen]
        header = ["", results.models[0], "items"]
        notes = interval_notes("the items", rows)
    else:
        others = results.models[1:]
        rows = [_change_row(change, len(others) > 1) for pair in chosen for change in _of(changes, pair)]
        name = others[0] if len(others) == 1 else "compared model"
        header = ["", results.models[0], name, "change", "95 % interval", "items", "verdict"]
        notes = [
            f"Item by item against “{results.models[0]}”, over the items that both models answered. The interval is "
            "for the change; changes in percentages are in percentage points. Better and worse: beyond noise (p < "
            "0.05, adjusted for the number of comparisons)."
        ]
    total = sum(len(compared(results, name)) for name in results.sets)
    if total > len(chosen):
        notes.append(f"{len(chosen)} of the {total} metrics used to compare models; all are listed below.")
    notes += [text for name, text in GLOSSARY.items() if any(metric.startswith(name) for _, metric in chosen)]
    return Table("The metrics that matter", header, rows, notes) if rows else None


def _of(changes: list[Change], pair: tuple[str, str]) -> list[Change]:
    return [change for change in changes if (change.set, change.metric) == pair and not change.group]


def _mean_row(results: Results, name: str, metric: str) -> list[Cell]:
    mean = results.mean(results.models[0], name, metric)
    cells = [value_with_error(metric, mean, 3), f"{mean.num_rows:,}"] if mean else ["", ""]
    return [f"{name}: {title_of(metric)}", *cells]


def _change_row(change: Change, is_named: bool) -> list[Cell]:
    metric = change.metric
    return [
        place_of(change) + (f" ({change.model})" if is_named else ""),
        value_of(metric, change.before, 3),
        value_of(metric, change.after, 3),
        change_of(metric, change.estimate.value, 3),
        interval_of(metric, change.estimate, 3),
        f"{change.estimate.num_rows:,}",
        change.finding,
    ]


def place_of(change: Change) -> str:
    """Set, part and metric of a change."""
    return f"{', '.join(filter(None, [change.set, change.group]))}: {title_of(change.metric)}"


def changes_table(results: Results, changes: list[Change], title: str) -> Table:
    """Every change from the first model."""
    rows: list[list[Cell]] = [
        [
            place_of(change),
            change.model,
            f"{change.estimate.num_rows:,}",
            *change.cells(),
            change.finding,
        ]
        for change in changes
    ]
    base = results.models[0]
    header = ["set and metric", "model", "items", base, "model's value", "change", "95 % interval"]
    notes = [
        f"Item by item against “{base}”, over the items that both models answered. p comes from McNemar's exact test "
        "where items are right or wrong, otherwise from Student's t over items; the adjusted p (Holm's method) allows "
        "for the number of sets of a model, or of parts of a set."
    ]
    return Table(f"{title} “{base}”", [*header, "p", "p, adjusted", "verdict"], rows, notes)


def counts(results: Results, changes: list[Change]) -> Table:
    """How many sets, and parts of sets, became better or worse."""
    rows: list[list[Cell]] = []
    for model in results.models[1:]:
        own = [c for c in changes if c.model == model and not c.group and results.kind(c.set) in ("choices", "harness")]
        parts = [c for c in changes if c.model == model and c.group]
        for what, some in (("sets", own), ("parts of sets", parts)):
            for metric, group in groupby(sorted(some, key=lambda c: c.metric), key=lambda c: c.metric):
                rows.append(_count(f"{model}: {what}, {title_of(metric)}", list(group)))
    header = ["", "number", f"mean of “{results.models[0]}”", "model's mean", "better", "equal", "worse"]
    title = "Multiple choice: how many sets became better or worse"
    return Table(title, [*header, "better beyond noise", "worse beyond noise"], rows)


def _count(label: str, changes: list[Change]) -> list[Cell]:
    before, after = (sum(values) / len(changes) for values in zip(*((c.before, c.after) for c in changes), strict=True))
    signs = [change.sense for change in changes]
    found = [change.sense for change in changes if change.is_found]
    counts = [signs.count(1), signs.count(0), signs.count(-1), found.count(1), found.count(-1)]
    return [label, str(len(changes)), f"{before:.1%}", f"{after:.1%}", *map(str, counts)]


def metrics(results: Results, name: str) -> Table:
    """Every metric of a set, by model."""
    rows: list[list[Cell]] = []
    for metric in results.metrics(name):
        means = [results.mean(model, name, metric) for model in results.models]
        cells = [value_with_error(metric, mean) if mean else "" for mean in means]
        if metric.startswith("nll"):
            cells = [
                f"{cell}; perplexity {perplexity(mean.value):,.2f}" if mean else ""
                for cell, mean in zip(cells, means, strict=True)
            ]
        rows.append([title_of(metric), *cells])
    counts = [results.results.get((model, name)) for model in results.models]
    rows.append(["items", *(f"{len(result.rows):,}" if result else "" for result in counts)])
    is_loss = results.kind(name) in ("text", "conversations")
    notes = interval_notes("the items", rows)
    if is_loss:
        notes.append(
            "Compare nats per token between models with the same tokenizer only; bits per byte between any models."
        )
    return Table(f"{name}: every metric", ["", *results.models], rows, notes)


def win_rates(judgings: AllVerdicts) -> Table:
    """What a judge preferred."""
    rows: list[list[Cell]] = []
    for (model, name), judging in judgings.items():
        found, controlled = rate(judging), length_controlled_rate(judging)
        rows.append(
            [
                f"{model}, {name}",
                f"{len(judging.scores):,} of {len(judging.judged):,}",
                f"{found.value:.1%} ±{100 * found.half_width:.1f}" if found else "",
                f"{controlled:.1%}" if controlled is not None else "",
                f"{list(judging.scores.values()).count(0.5):,}",
                f"{judging.agreement:.1%}" if judging.scores else "",
                f"{judging.first_share:.1%}" if judging.scores else "",
                f"{judging.count(unparsed=True):,}",
                f"{judging.count(unparsed=False):,}",
                f"{judging.cost:,.4f}",
            ]
        )
    header = [
        *("", "pairs judged", "win rate", "at equal length", "ties", "orders agree", "first answer preferred"),
        *("no verdict", "failed", "cost"),
    ]
    notes = [
        "Every pair is judged in both orders and counts if both give a verdict; a tie, or one verdict for each model, "
        "is half a win. ± is half of the 95 % interval over pairs. Compare win rates only if judge and opponent are "
        "the same."
    ]
    return Table("Win rate against the first model", header, rows, notes)


def exposure_table(suite: Suite, results: Results, exposures: Mapping[str, Exposure], seen: Items) -> Table:
    """How many items appear in training data, and which files were searched."""
    rows: list[list[Cell]] = []
    for model in results.models:
        if model not in exposures:
            is_tried = model in results.failures or f"{model}, {TRAINING_DATA}" in results.failures
            why = "not searched; see “Not scored or not compared”" if is_tried else "unknown: not a run folder"
            rows.append([model, "", "", "", why])
            continue
        data, trained, chosen = exposures[model].data, exposures[model].trained, exposures[model].chosen
        if data.sources is None:
            rows.append([model, "", "", "", data.description])
            continue
        for name in results.sets:
            counts = (str(len(found.get(name, ()))) for found in (trained, chosen))
            rows.append([model, name, *counts, data.description])
    for name in results.sets if suite.trained_on else []:
        rows.append(
            [
                "all models (`trained_on` of the suite)",
                name,
                str(len(seen.get(name, ()))),
                "",
                ", ".join(suite.trained_on or []),
            ]
        )
    notes = [
        f"An item counts if {suite.overlap} consecutive words of it (in plain text, {4 * suite.overlap}), or all its "
        "words if it has fewer, appear in a record. Validation records are not trained on, but help to choose "
        "the best checkpoint."
    ]
    header = ["model", "set", "items in training records", "items in validation records", "searched"]
    return Table("Were the items in the training data?", header, rows, notes)


def all_seen(seen: Items, exposures: Mapping[str, Exposure]) -> Items:
    """Items that any model was trained on; the clean part of a set leaves them out for every model."""
    parts = [seen, *(exposure.trained for exposure in exposures.values())]
    return {name: set().union(*(part.get(name, set()) for part in parts)) for part in parts for name in part}


def seen_table(results: Results, seen: Items) -> Table:
    """The metrics with and without the items that are in training data."""
    rows: list[list[Cell]] = []
    for name, items in seen.items():
        for metric in compared(results, name):
            for model in results.models:
                scored = set(results.values(model, name, metric))
                cells = [results.mean(model, name, metric, part) for part in (scored - items, scored & items)]
                values = [f"{value_with_error(metric, mean)}, {mean.num_rows} items" if mean else "" for mean in cells]
                rows.append([f"{name}, {title_of(metric)}: {model}", *values])
    return Table("Scores with and without items from the training data", ["", "not in training", "in training"], rows)


def side_by_side(results: Results, name: str) -> Table:
    """The first answers of a set, a column for each model."""
    models = [model for model in results.models if (model, name) in results.results]
    items = dict.fromkeys(item for model in models for item in results.results[model, name].rows)
    limit = None if results.kind(name) == "prompts" else _SHOWN_ANSWERS
    rows: list[list[Cell]] = []
    for item in list(items)[:limit]:
        found = [results.results[model, name].rows.get(item) for model in models]
        details: list[dict[str, Any]] = [row.details if row else {} for row in found]
        shown = next(d for d in details if d)
        reference = [] if results.kind(name) == "prompts" else [shown.get("reference", "")]
        rows.append([shown["question"], *(d.get("answer", "") for d in details), *reference])
    header = ["prompt", *models, *([] if results.kind(name) == "prompts" else ["reference"])]
    notes = [f"The first {len(rows)} of {len(items):,}; all of them are in items/."] if len(rows) < len(items) else []
    return Table(f"{name}: side by side", header, rows, notes, is_text=True)


def published_table(suite: Suite) -> Table:
    """The published numbers that the suite asks for."""
    asked = {REPORTS.get(name, name) for name in suite.published}
    rows: list[list[Cell]] = [
        [entry["what"], *(str(entry.get(key, "")) for key in ("n", "before", "after", "compare"))]
        for entry in published()
        if entry["source"] in asked
    ]
    notes = ["Published by others, to read next to your own numbers; the last column says when they are comparable."]
    return Table("Published numbers", ["", "items", "before", "after", "comparable with"], rows, notes)


def published() -> list[dict[str, Any]]:
    """Numbers from the published reports, and what each can be compared with."""
    path = Path(__file__).with_name("published.yaml")
    entries: list[dict[str, Any]] = read_yaml(path, advice="It is part of lit_sft; install it again.")
    return entries


def costs(results: Results) -> Table:
    """Items and seconds of every model and set."""
    rows: list[list[Cell]] = [
        [
            f"{model}, {name}",
            f"{len(r.rows):,}",
            f"{sum(bool(row.details.get('truncated')) for row in r.rows.values()):,}",
            f"{r.num_skipped:,}",
            f"{r.seconds:.1f}",
        ]
        for (model, name), r in results.results.items()
    ]
    return Table("Items and time", ["", "items", "truncated", "skipped", "seconds"], rows)


def failures(results: Results, refused: dict[str, str]) -> Table:
    """What was not scored or compared, and why."""
    skipped: list[list[Cell]] = []
    for (model, name), result in results.results.items():
        shown = result.skipped[:_SHOWN_SKIPPED]
        if more := result.num_skipped - len(shown):
            shown = [*shown, f"and {more:,} more"]
        skipped += [[f"{model}, {name}", reason] for reason in shown]
    found: list[list[Cell]] = [[what, why] for what, why in {**results.failures, **refused}.items()]
    return Table("Not scored or not compared", ["what", "why"], [*found, *skipped])
