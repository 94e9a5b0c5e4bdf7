"""The page of an evaluation: what changed and how sure that is, every metric, and answers side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from lit_sft.evaluation.change_charts import draw_changes
from lit_sft.evaluation.contamination import Exposure, Items, in_words
from lit_sft.evaluation.exports import write_results, write_table
from lit_sft.evaluation.item_results import Change, Results, compare, compared
from lit_sft.evaluation.metric_names import change_of, p_of, title_of, value_of, value_with_error
from lit_sft.evaluation.suite import Suite
from lit_sft.evaluation.win_rate import Judgings, length_controlled_rate, rate
from lit_sft.metrics.segments import perplexity
from lit_sft.reporting.page import Report, Table, render_html, render_markdown

_SHOWN_ANSWERS = 5
_SHOWN_SKIPPED = 20


def write_pages(
    suite: Suite,
    results: Results,
    folder: Path,
    *,
    about: list[str],
    seen: Items | None = None,
    judgings: Judgings | None = None,
    exposures: Mapping[str, Exposure] | None = None,
) -> Path:
    """Write report.html, report.md and the picture, and the same metrics as report.csv and results.json.

    Args:
        suite: What was asked.
        results: What was scored.
        folder: Where to.
        about: What there is to know of the models, a fact a line.
        seen: Items that stand in the suite's training files, by set.
        judgings: What a judge made of them, by model and set.
        exposures: What was found in the models' own training data, by model.

    Returns:
        The page.
    """
    changes, refused = compare(results)
    seen, exposures = seen or {}, exposures or {}
    write_table(folder / "report.csv", results, changes)
    write_results(folder / "results.json", suite, results, changes, judgings or {}, exposures)
    accuracies = [change for change in changes if results.kind(change.set) in ("choices", "harness")]
    charts = [("Change by set, with 95 % intervals", draw_changes(accuracies, folder / "changes.png"))]
    tables = [
        _counts(results, changes),
        _changes(results, [change for change in changes if not change.group], "Change to"),
        *(_metrics(results, name) for name in results.sets),
        _changes(results, [change for change in changes if change.group], "Parts of sets: change to"),
        _win_rates(judgings or {}),
        _exposure(suite, results, exposures, seen),
        _seen(results, _all_seen(seen, exposures)),
        *(_side_by_side(results, name) for name in results.sets if results.kind(name) in ("prompts", "answers")),
        _published(suite),
        Table("Items and cost", ["", "items", "of them truncated", "left out", "seconds"], _costs(results)),
        Table("Not scored or not compared", ["what", "why"], _failures(results, refused)),
    ]
    report = Report(
        question=suite.question,
        answers=[
            *_in_words(results, changes),
            *(line for model, exposure in exposures.items() for line in in_words(results, model, exposure)),
        ],
        design=about,
        tables=[table for table in tables if table.rows],
        charts=[(title, path) for title, path in charts if path is not None],
    )
    (folder / "report.md").write_text(render_markdown(report), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(render_html(report), encoding="utf-8")
    return page


def _in_words(results: Results, changes: list[Change]) -> list[str]:
    base = results.models[0]
    if len(results.models) == 1:
        return [f"“{base}” alone: give a second model to see what changed."]
    said = []
    for model in results.models[1:]:
        own = [change for change in changes if change.model == model and not change.group]
        found = [change for change in own if change.is_found and change.sense]
        if not own:
            is_asked = any(compared(results, name) for name in results.sets)
            why = "; see the last table" if is_asked else ": nothing in this suite has a metric to compare by"
            said.append(f"“{model}” is not compared with “{base}”{why}.")
            continue
        better, worse = (sum(change.sense == sign for change in found) for sign in (1, -1))
        untold = sum(math.isnan(change.adjusted_p) for change in own)
        rest = len(own) - better - worse - untold
        said.append(
            f"“{model}” against “{base}”: of {len(own)} comparisons, {better} are better and {worse} worse beyond "
            f"noise; in {rest} no difference was found{f', and {untold} cannot be told' if untold else ''}."
        )
        said += [_sentence(change) for change in found]
    if results.failures:
        said.append("Not everything was scored or compared; see the last table.")
    return said


def _sentence(change: Change) -> str:
    verdict = "better" if change.sense > 0 else "worse"
    before, after = (value_of(change.metric, value) for value in (change.before, change.after))
    return (
        f"{_place(change)}: {verdict}, {before} to {after} "
        f"(95 % interval of the change {_interval(change)}; p {p_of(change.adjusted_p, is_sentence=True)})."
    )


def _changes(results: Results, changes: list[Change], title: str) -> Table:
    rows = [
        [
            _place(change),
            change.model,
            f"{change.estimate.num_rows:,}",
            value_of(change.metric, change.before),
            value_of(change.metric, change.after),
            change_of(change.metric, change.estimate.value),
            _interval(change),
            p_of(change.p_value),
            p_of(change.adjusted_p),
            _verdict(change),
        ]
        for change in changes
    ]
    header = ["set and metric", "model", "items", "before", "after", "change", "95 % interval", "p", "p, Holm", "found"]
    notes = [
        "Item by item against the first model. p is of McNemar's exact test where items are right or wrong, else of "
        "Student's t over items; Holm's adjustment is over the sets of a model, and over the parts of a set."
    ]
    return Table(f"{title} “{results.models[0]}”", header, rows, notes)


def _counts(results: Results, changes: list[Change]) -> Table:
    rows = []
    for model in results.models[1:]:
        own = [c for c in changes if c.model == model and not c.group and results.kind(c.set) in ("choices", "harness")]
        parts = [c for c in changes if c.model == model and c.group]
        for what, some in (("sets", own), ("parts of sets", parts)):
            for metric, group in groupby(sorted(some, key=lambda c: c.metric), key=lambda c: c.metric):
                rows.append(_count(f"{model}: {what}, {title_of(metric)}", list(group)))
    header = [
        "",
        "number",
        "mean before",
        "mean after",
        "better",
        "equal",
        "worse",
        "better beyond noise",
        "worse beyond noise",
    ]
    return Table("Counts of multiple choice", header, rows)


def _count(label: str, changes: list[Change]) -> list[str]:
    before, after = (sum(values) / len(changes) for values in zip(*((c.before, c.after) for c in changes), strict=True))
    signs = [change.sense for change in changes]
    found = [change.sense for change in changes if change.is_found]
    counts = [signs.count(1), signs.count(0), signs.count(-1), found.count(1), found.count(-1)]
    return [label, str(len(changes)), f"{before:.1%}", f"{after:.1%}", *map(str, counts)]


def _metrics(results: Results, name: str) -> Table:
    rows = []
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
    notes = ["Per token, compare only models of one tokenizer; per byte, any."] if is_loss else []
    return Table(f"{name}: every metric", ["", *results.models], rows, notes)


def _win_rates(judgings: Judgings) -> Table:
    rows = []
    for (model, name), judging in judgings.items():
        found, controlled = rate(judging), length_controlled_rate(judging)
        rows.append(
            [
                f"{model}, {name}",
                f"{len(judging.scores):,} of {len(judging.judged):,}",
                f"{found.value:.1%} ±{100 * found.half_width:.1f}" if found else "",
                f"{controlled:.1%}" if controlled is not None else "",
                f"{list(judging.scores.values()).count(0.5):,}",
                f"{judging.agreement:.1%}",
                f"{judging.first_share:.1%}",
                f"{judging.count(unparsed=True):,}",
                f"{judging.count(unparsed=False):,}",
                f"{judging.cost:,.4f}",
            ]
        )
    header = [
        *("", "pairs judged", "win rate", "at like length", "undecided", "orders agree", "first preferred"),
        *("without verdict", "failed", "cost"),
    ]
    notes = [
        "Every pair is judged in both orders, and counts where both gave a verdict: a tie, or one verdict for each, is "
        "half a win. Compare rates of one judge and one opponent only."
    ]
    return Table("Win rate against the first model", header, rows, notes)


def _exposure(suite: Suite, results: Results, exposures: Mapping[str, Exposure], seen: Items) -> Table:
    """Where it was looked for the items, and what was found."""
    rows = []
    for model in results.models:
        if model not in exposures:
            rows.append([model, "", "", "", "not known: it lies in no run folder"])
            continue
        data, trained, chosen = exposures[model].data, exposures[model].trained, exposures[model].chosen
        if data.sources is None:
            rows.append([model, "", "", "", data.said])
            continue
        for name in results.sets:
            counts = (str(len(found.get(name, ()))) for found in (trained, chosen))
            rows.append([model, name, *counts, data.said])
    for name in results.sets if suite.trained_on else []:
        rows.append(
            ["all, as the suite says", name, str(len(seen.get(name, ()))), "", ", ".join(suite.trained_on or [])]
        )
    notes = [
        f"An item is counted where {suite.overlap} words of it in a row (of plain text, {4 * suite.overlap}), or all "
        "of fewer, stand in a record. Validation records are not trained on, but they choose the best checkpoint."
    ]
    header = ["model", "set", "items in training records", "items in validation records", "looked in"]
    return Table("Were the items in the training data?", header, rows, notes)


def _all_seen(seen: Items, exposures: Mapping[str, Exposure]) -> Items:
    """Items that any model was trained on: all are compared on the others."""
    parts = [seen, *(exposure.trained for exposure in exposures.values())]
    return {name: set().union(*(part.get(name, set()) for part in parts)) for part in parts for name in part}


def _seen(results: Results, seen: Items) -> Table:
    rows = []
    for name, items in seen.items():
        for metric in compared(results, name):
            for model in results.models:
                scored = set(results.values(model, name, metric))
                cells = [results.mean(model, name, metric, part) for part in (scored - items, scored & items)]
                values = [f"{value_with_error(metric, mean)}, {mean.num_rows} items" if mean else "" for mean in cells]
                rows.append([f"{name}, {title_of(metric)}: {model}", *values])
    return Table("Items that stand in the training records", ["", "clean", "contaminated"], rows)


def _side_by_side(results: Results, name: str) -> Table:
    models = [model for model in results.models if (model, name) in results.results]
    items = dict.fromkeys(item for model in models for item in results.results[model, name].rows)
    limit = None if results.kind(name) == "prompts" else _SHOWN_ANSWERS
    rows = []
    for item in list(items)[:limit]:
        found = [results.results[model, name].rows.get(item) for model in models]
        details: list[dict[str, Any]] = [row.details if row else {} for row in found]
        shown = next(d for d in details if d)
        reference = [] if results.kind(name) == "prompts" else [shown.get("reference", "")]
        rows.append([shown["question"], *(d.get("answer", "") for d in details), *reference])
    header = ["prompt", *models, *([] if results.kind(name) == "prompts" else ["reference"])]
    notes = [f"The first {len(rows)} of {len(items):,}; all are in items/."] if len(rows) < len(items) else []
    return Table(f"{name}: side by side", header, rows, notes)


def _published(suite: Suite) -> Table:
    rows = []
    for entry in published():
        if entry["source"] in suite.published:
            rows.append(
                [
                    f"{entry['source']}: {entry['what']}",
                    *(str(entry.get(k, "")) for k in ("n", "before", "after", "compare")),
                ]
            )
    return Table("Published metrics", ["", "items", "before", "after", "comparable with ours"], rows)


def published() -> list[dict[str, Any]]:
    """The metrics of the reference reports, with what they can be compared with."""
    path = Path(__file__).with_name("published.yaml")
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return entries


def _costs(results: Results) -> list[list[str]]:
    return [
        [
            f"{model}, {name}",
            f"{len(r.rows):,}",
            f"{sum(bool(row.details.get('truncated')) for row in r.rows.values()):,}",
            f"{r.num_skipped:,}",
            f"{r.seconds:.1f}",
        ]
        for (model, name), r in results.results.items()
    ]


def _failures(results: Results, refused: dict[str, str]) -> list[list[str]]:
    skipped = []
    for (model, name), result in results.results.items():
        shown = result.skipped[:_SHOWN_SKIPPED]
        if more := result.num_skipped - len(shown):
            shown = [*shown, f"and {more:,} more"]
        skipped += [[f"{model}, {name}", reason] for reason in shown]
    return [*([what, why] for what, why in {**results.failures, **refused}.items()), *skipped]


def _place(change: Change) -> str:
    return ", ".join(filter(None, [change.set, change.group, title_of(change.metric)]))


def _interval(change: Change) -> str:
    if not change.estimate.standard_error > 0:
        return ""
    return f"{change_of(change.metric, change.estimate.low)} to {change_of(change.metric, change.estimate.high)}"


def _verdict(change: Change) -> str:
    if math.isnan(change.adjusted_p):
        return "all the same" if change.estimate.value == 0 else "cannot be told"
    if not change.is_found:
        return "none"
    return {1: "better", -1: "worse", 0: "more" if change.estimate.value > 0 else "less"}[change.sense]
