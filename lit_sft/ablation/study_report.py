"""`python -m lit_sft report STUDY_OR_RUN...`: one page of what was compared, what was found and how sure it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from data_modules.errors import UserError
from lit_sft.ablation.collect import Collected, different, read_runs, read_study_folder
from lit_sft.ablation.comparison import MORE_IS_BETTER, Comparison, Difference, Findings
from lit_sft.ablation.run_files import ANSWER_FIGURES
from lit_sft.ablation.study_charts import draw_curves, draw_differences
from lit_sft.console import print_line_on
from lit_sft.files import digest, slug
from lit_sft.metrics.segments import SEGMENTS
from lit_sft.reporting.page import Report, Table, render_html, render_markdown
from lit_sft.reporting.sheets import write_csv
from lit_sft.reporting.statistics import Estimate
from lit_sft.settings.arguments import Arguments

_SHOWN_FAILURES = 3
_REPORTS = Path("runs/reports")


def main(argv: list[str]) -> None:
    """Write a report.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If there is nothing to compare.
        SystemExit: With 1 if one of the runs named could not be compared.
    """
    options = _parser().parse_args(argv[1:])
    folders = [Path(run) for run in options.runs]
    collected = _collect(folders)
    written = _write(collected, folders, Path(options.output) if options.output else None)
    print_line_on(Console(), f"report  {written}")
    if collected.failures and not _is_study(folders):
        raise SystemExit(1)


def write_report(folders: list[Path], output: Path | None = None) -> Path:
    """Write report.html, report.md, report.csv and the pictures.

    Args:
        folders: A study's, or those of runs, the baseline first.
        output: Where to write. None: into the study or the run if there is only one, or a folder of its own under
            `runs/reports`, so that no run's own report is overwritten.

    Returns:
        The page.

    Raises:
        UserError: If there is nothing to compare.
    """
    return _write(_collect(folders), folders, output)


def _is_study(folders: list[Path]) -> bool:
    return len(folders) == 1 and any((folders[0] / name).exists() for name in ("study.json", "trials"))


def _collect(folders: list[Path]) -> Collected:
    return read_study_folder(folders[0]) if _is_study(folders) else read_runs(folders)


def _write(collected: Collected, folders: list[Path], output: Path | None) -> Path:
    comparison = Comparison(collected.arms, collected.results, collected.settings)
    if not collected.results:
        lacking = [f"{name}: {reason}" for name, reason in collected.failures.items()]
        if more := len(lacking[_SHOWN_FAILURES:]):
            lacking = [*lacking[:_SHOWN_FAILURES], f"and {more:,} more"]
        raise UserError(
            f"{', '.join(map(str, folders))}: nothing here has been tested ({'; '.join(lacking)}). Run the study's "
            "command again, with --retry for what failed; runs of your own need `python -m lit_sft test`."
        )
    output = output or _own_folder(collected, different(folders))
    output.mkdir(parents=True, exist_ok=True)
    for name, reason in collected.failures.items():
        print_line_on(Console(stderr=True), f"left out  {name}: {reason}")
    report = make_report(comparison, collected, output)
    (output / "report.md").write_text(render_markdown(report), encoding="utf-8")
    page = output / "report.html"
    page.write_text(render_html(report), encoding="utf-8")
    return page


def _own_folder(collected: Collected, folders: list[Path]) -> Path:
    """Where a report goes that was given no place; that of other runs of the same names is another."""
    if len(folders) == 1:
        return folders[0]
    name = slug("_against_".join(collected.arms), "runs")
    return _REPORTS / f"{name}-{digest([str(folder.resolve()) for folder in folders])[:6]}"


def make_report(comparison: Comparison, collected: Collected, output: Path) -> Report:
    """Lay out what was found; draws the pictures and writes report.csv."""
    found = Findings(comparison)
    write_csv(output / "report.csv", _lines(found))
    primary, failures = collected.primary, collected.failures
    charts = [
        ("Differences to the baseline", draw_differences(found.differences, primary, output / "differences.png")),
        ("Validation loss by step", draw_curves(comparison, primary, output / "curves.png")),
    ]
    refused = [[f"{_title(metric)}, {arm}", why] for metric, arm, why in found.refused]
    losses = [name for name in found.means if name not in ANSWER_FIGURES]
    answers = [name for name in found.means if name in ANSWER_FIGURES]
    tables = [
        _checks(comparison),
        _matrix(found, losses, "Trained under, scored under: nats per token", "tokens"),
        _differences(found, losses, "Losses: differences to"),
        _matrix(found, answers, "Generated answers", "answers"),
        _differences(found, answers, "Generated answers: differences to"),
        _costs(comparison),
        _ledger(comparison),
        _samples(comparison),
        Table("Not compared", ["what", "why"], [*refused, *map(list, failures.items()), *_damaged(comparison)]),
    ]
    return Report(
        question=collected.question or f"{' against '.join(comparison.arms)}",
        answers=_in_words(found, primary, failures),
        design=_design(comparison, collected),
        tables=[table for table in tables if table.rows],
        charts=[(title, path) for title, path in charts if path is not None],
    )


def _in_words(found: Findings, primary: str, failures: dict[str, str]) -> list[str]:
    """The answer to the question, one sentence an arm, and what takes from it."""
    comparison = found.comparison
    compared = [d for d in found.differences if d.metric == primary]
    num_told = sum(each.is_told for each in compared)
    said = [_sentence(each, comparison.baseline, num_told) for each in compared]
    if not said:
        said.append(_unanswered(comparison, primary))
    counts = {each.arm: each.estimate.num_seeds for each in compared}
    if counts and min(counts.values()) == 1:
        said.append("There is one seed to compare: an interval says nothing of what another would have given.")
    if len(set(counts.values())) > 1:
        said.append(f"Seeds compared: {', '.join(f'{count} of “{arm}”' for arm, count in counts.items())}.")
    broken = [f"{check.what} {check.why}" for check in comparison.checks() if check.holds == "NO"]
    if broken:
        said.append(f"The trials are not paired in everything: {'; '.join(broken)}.")
    if failures:
        said.append(
            f"{len(failures)} {'trials have' if len(failures) > 1 else 'trial has'} no result; see the last table."
        )
    if any(result.damaged for result in comparison.results.values()):
        said.append("Not every line of the results could be read; see the last table.")
    return said


def _unanswered(comparison: Comparison, primary: str) -> str:
    """Why nothing was compared."""
    if len(comparison.arms) == 1:
        return f"There is nothing to compare “{comparison.baseline}” with: give the results of a second arm."
    if not any(comparison.paired(arm) for arm in comparison.arms[1:]):
        return f"Nothing can be compared: no arm has a result with a seed of which “{comparison.baseline}” has one."
    return f"The question cannot be answered: {_title(primary)} is not among what can be compared."


def _sentence(each: Difference, base: str, num_told: int) -> str:
    """What was found of one arm."""
    if each.is_zero:
        return f"“{each.arm}” and “{base}” have the same {_title(each.metric)} in every record, with every seed."
    if not each.is_told:
        return f"“{each.arm}” cannot be compared with “{base}”: the metrics are not finite, or too few."
    low, high = _signed(each.estimate.low), _signed(each.estimate.high)
    among = f", adjusted for {num_told} comparisons" if num_told > 1 else ""
    p = f"p {_p(each.adjusted_p) if each.adjusted_p < 0.001 else f'= {_p(each.adjusted_p)}'}{among}"
    metrics = f"in {_title(each.metric)}: {_signed(each.estimate.value)} (95 % interval {low} to {high}; {p})"
    if not each.is_found:
        return f"No difference was found between “{each.arm}” and “{base}” {metrics}."
    return f"“{each.arm}” is {'better' if each.is_better else 'worse'} than “{base}” {metrics}."


def _design(comparison: Comparison, collected: Collected) -> list[str]:
    arms = dict.fromkeys((*comparison.arms, *collected.settings))  # those without a result too
    return [
        f"Arms: {', '.join(f'“{arm}”' for arm in arms)}; “{comparison.baseline}” is the baseline.",
        *(f"“{arm}”: {_shown(settings)}" for arm, settings in collected.settings.items()),
        f"Seeds: {'; '.join(f'“{arm}” {_listed(comparison.seeds(arm))}' for arm in comparison.arms)}.",
        f"Budget: {collected.budget}.",
        "Intervals are over seeds and test records (two-way analysis of variance, Satterthwaite's degrees of freedom); "
        "differences are paired by seed and record, and their p-values adjusted by Holm's method among the arms.",
    ]


def _checks(comparison: Comparison) -> Table:
    rows = [[check.what, check.holds, check.why] for check in comparison.checks()]
    return Table("What pairing rests on", ["", "holds", ""], rows)


def _matrix(found: Findings, metrics: list[str], title: str, unit: str) -> Table:
    rows = []
    for arm in found.comparison.arms:
        cells = [found.means[metric].get(arm) for metric in metrics]
        rows.append([arm, *(_with_error(cell[0]) if cell else "" for cell in cells)])
    for arm in found.comparison.arms if metrics else []:
        cells = [found.means[metric].get(arm) for metric in metrics]
        rows.append(
            [f"{unit}, records: {arm}", *(f"{cell[1]:,.0f}, {cell[0].num_rows:,}" if cell else "" for cell in cells)]
        )
    notes = ["Compare within a column: every column is over tokens of its own."] if unit == "tokens" else []
    return Table(title, ["", *map(_title, metrics)], rows if metrics else [], notes)


def _with_error(estimate: Estimate) -> str:
    # values that are all alike tell nothing of how far others would lie from them
    return f"{estimate.value:.4f}" + (f" ±{estimate.half_width:.4f}" if estimate.standard_error else "")


def _differences(found: Findings, metrics: list[str], title: str) -> Table:
    rows = [
        [
            each.arm,
            _title(each.metric),
            _signed(each.estimate.value),
            f"{_signed(each.estimate.low)} to {_signed(each.estimate.high)}" if each.is_told else "",
            _p(each.estimate.p_value),
            _p(each.adjusted_p),
            str(each.estimate.num_seeds),
            _verdict(each),
        ]
        for each in found.differences
        if each.metric in metrics
    ]
    header = ["arm", "figure", "difference", "95 % interval", "p", "p, Holm", "seeds", "found"]
    return Table(f"{title} {found.comparison.baseline}", header, rows)


def _verdict(each: Difference) -> str:
    if each.is_zero:
        return "all the same"
    if not each.is_told:
        return "cannot be told"
    if not each.is_found:
        return "none"
    if each.metric in ANSWER_FIGURES and each.metric not in MORE_IS_BETTER:
        return "more" if each.estimate.value > 0 else "less"
    return "better" if each.is_better else "worse"


def _costs(comparison: Comparison) -> Table:
    names = ["steps", "examples", "tokens", "supervised tokens", "seconds of training", "tokens/s", "peak memory"]
    rows = []
    for arm in comparison.arms:
        records = [comparison.results[arm, seed].record for seed in comparison.seeds(arm)]
        if not records or not all(records):
            continue
        mean = {
            key: sum(r[key] for r in records) / len(records)
            for key in ("step", "examples", "tokens", "supervised_tokens", "seconds", "peak_bytes")
        }
        counts = [f"{mean[key]:,.0f}" for key in ("step", "examples", "tokens", "supervised_tokens", "seconds")]
        rows.append(
            [arm, *counts, f"{mean['tokens'] / max(mean['seconds'], 1e-9):,.0f}", f"{mean['peak_bytes'] / 1e9:.2f} GB"]
        )
    return Table("Cost, means over the seeds", ["", *names], rows)


def _ledger(comparison: Comparison) -> Table:
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
    rows = []
    for arm in comparison.arms:
        if not comparison.seeds(arm):
            continue
        result = comparison.results[arm, comparison.seeds(arm)[0]].result
        ledger = (result.get("ledger") or {}).get("train") or {}
        values = [ledger.get(name, "") for name in names]
        # some are counted by mask, some stand beside examples of them
        rows.append(
            [arm, *(str(v.get(result.get("mask"), v.get("count", "")) if isinstance(v, dict) else v) for v in values)]
        )
    return Table("Training records", ["", *(name.replace("_", " ") for name in names)], rows)


def _damaged(comparison: Comparison) -> list[list[str]]:
    """Trials with lines that could not be read."""
    return [
        [f"{arm}, seed {seed}", f"{len(result.damaged):,} lines could not be read, the first: {result.damaged[0]}"]
        for (arm, seed), result in comparison.results.items()
        if result.damaged
    ]


def _samples(comparison: Comparison) -> Table:
    base = comparison.seeds(comparison.baseline)
    seed = next((seed for seed in base if all((arm, seed) in comparison.results for arm in comparison.arms)), None)
    if seed is None:
        return Table("", [], [])
    samples = {arm: comparison.results[arm, seed].samples for arm in comparison.arms}
    prompts = [prompt for prompt in samples[comparison.baseline] if all(prompt in found for found in samples.values())]
    rows = [[prompt, *(samples[arm][prompt] for arm in comparison.arms)] for prompt in prompts]
    return Table(f"The same prompts, at the end, seed {seed}", ["prompt", *comparison.arms], rows)


def _lines(found: Findings) -> Iterator[list[object]]:
    """Every mean and difference as a line of CSV."""
    yield ["what", "figure", "arm", "value", "low", "high", "p", "p_holm", "seeds", "records", "weight"]
    for metric, by_arm in found.means.items():
        for arm, (e, weight) in by_arm.items():
            yield ["mean", metric, arm, e.value, e.low, e.high, "", "", e.num_seeds, e.num_rows, weight]
    for d in found.differences:
        e, weight = d.estimate, found.means[d.metric][d.arm][1]
        numbers = [e.value, e.low, e.high, e.p_value, d.adjusted_p, e.num_seeds, e.num_rows, weight]
        yield ["difference", d.metric, d.arm, *numbers]


def _shown(settings: dict[str, Any]) -> str:
    return (
        ", ".join(f"{name} {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in settings.items())
        or "as the base"
    )


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _title(metric: str) -> str:
    known = {
        "rougeL_mixed": "ROUGE-L (words; Chinese by character)",
        "exact_match": "exact match",
        "ended": "ended by itself",
        "repetition": "repeated 4-grams",
        "num_tokens": "tokens of an answer",
    }
    metric, _, file = metric.partition(" in ")
    if file:
        return f"{metric.replace('_', ' ')} mask, {file}"
    kind = " mask" if metric not in SEGMENTS else "s" if metric.endswith("token") else " tokens"
    return known.get(metric, metric.replace("_", " ") + kind)


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _parser() -> Arguments:
    parser = Arguments("report", __doc__, example="runs/loss_masks")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a study's folder, or run folders, the baseline first")
    parser.add_argument(
        "--output", help="folder of the report; default: that of the study or run, or a new one under runs/reports"
    )
    return parser
