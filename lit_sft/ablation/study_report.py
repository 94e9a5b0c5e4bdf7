"""`python -m lit_sft report STUDY_OR_RUN...`: one page with the answer, how sure it is, and all the numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from data_modules.errors import UserError
from lit_sft.ablation import study_tables
from lit_sft.ablation.collect import Collected, different, read_runs, read_study_folder
from lit_sft.ablation.comparison import ArmDifference, Check, Comparison, Findings, shared_name
from lit_sft.ablation.study_charts import draw_curves, draw_differences
from lit_sft.console import console as terminal
from lit_sft.console import print_error_line
from lit_sft.files import digest, slug
from lit_sft.reporting.formatting import difference_of, digits_of, interval_of, p_of, title_of
from lit_sft.reporting.page import Cell, Report, Table, print_summary, write_pages
from lit_sft.reporting.sheets import write_csv
from lit_sft.settings.arguments import Arguments

_SHOWN_FAILURES = 3
_REPORTS = Path("runs/reports")


def main(argv: list[str]) -> None:
    """Write a report.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If there is nothing to compare.
        SystemExit: With 1 if one of the given runs could not be compared.
    """
    options = _parser().parse_args(argv[1:])
    folders = [Path(run) for run in options.runs]
    collected = _collect(folders)
    report, page = _write(collected, folders, Path(options.output) if options.output else None)
    print_summary(terminal, report, page)
    if collected.failures and not _is_study(folders):
        raise SystemExit(1)


def write_report(folders: list[Path], output: Path | None = None, console: Console | None = None) -> Path:
    """Write report.html, report.md, report.csv and the pictures.

    Args:
        folders: A study's folder, or run folders, the baseline first.
        output: Where to write. None: into the study or the run if there is only one, or a new folder under
            `runs/reports`, so that no run's own report is overwritten.
        console: Where to print the answer and the metrics that matter. None: nowhere.

    Returns:
        The page.

    Raises:
        UserError: If there is nothing to compare.
    """
    report, page = _write(_collect(folders), folders, output)
    if console is not None:
        print_summary(console, report, page)
    return page


def _is_study(folders: list[Path]) -> bool:
    return len(folders) == 1 and any((folders[0] / name).exists() for name in ("study.json", "trials"))


def _collect(folders: list[Path]) -> Collected:
    return read_study_folder(folders[0]) if _is_study(folders) else read_runs(folders)


def _write(collected: Collected, folders: list[Path], output: Path | None) -> tuple[Report, Path]:
    comparison = Comparison(collected.arms, collected.results, collected.settings)
    if not collected.results:
        lacking = [f"{name}: {reason}" for name, reason in collected.failures.items()]
        if more := len(lacking[_SHOWN_FAILURES:]):
            lacking = [*lacking[:_SHOWN_FAILURES], f"and {more:,} more"]
        raise UserError(
            f"{', '.join(map(str, folders))}: nothing has been tested here ({'; '.join(lacking)}). Run the study's "
            "command again, with --retry to repeat failed trials; test your own runs with `python -m lit_sft test`."
        )
    output = output or _own_folder(collected, different(folders))
    output.mkdir(parents=True, exist_ok=True)
    for name, reason in collected.failures.items():
        print_error_line(f"left out  {name}: {reason}")
    report = make_report(comparison, collected, output)
    return report, write_pages(report, output)


def _own_folder(collected: Collected, folders: list[Path]) -> Path:
    """Where a report goes by default; reports of different runs with the same names get different folders."""
    if len(folders) == 1:
        return folders[0]
    name = slug("_against_".join(collected.arms), "runs")
    return _REPORTS / f"{name}-{digest([str(folder.resolve()) for folder in folders])[:6]}"


def make_report(comparison: Comparison, collected: Collected, output: Path) -> Report:
    """Lay out the findings; draws the pictures and writes report.csv."""
    found = Findings(comparison)
    write_csv(output / "report.csv", _lines(found))
    primary, failures = collected.primary, collected.failures
    base = comparison.baseline
    charts = [
        (
            f"Differences from “{base}” with 95 % intervals; green is better, red is worse, grey is within noise",
            draw_differences(found.differences, primary, output / "differences.png"),
        ),
        (
            "Validation loss by optimiser step: mean over seeds, with a band from the lowest to the highest seed",
            draw_curves(comparison, primary, output / "curves.png"),
        ),
    ]
    sides = [table for table in study_tables.answers(comparison) if table.rows]
    refused = [[f"{title_of(shared_name(metric))}, {arm}", why] for metric, arm, why in found.refused]
    losses, answers, pairs = (study_tables.metrics_of(found, kind) for kind in ("losses", "answers", "pairs"))
    lacking: list[list[Cell]] = [*map(list[Cell], refused), *map(list[Cell], failures.items())]
    tables = [
        study_tables.checks(comparison),
        study_tables.means(found, losses, "Losses: nats per token", "tokens"),
        study_tables.differences(found, losses, "Losses: differences from"),
        study_tables.means(found, pairs, "Preference pairs", "pairs"),
        study_tables.differences(found, pairs, "Preference pairs: differences from"),
        study_tables.means(found, answers, "Generated answers", "answers"),
        study_tables.differences(found, answers, "Generated answers: differences from"),
        study_tables.costs(comparison),
        study_tables.ledger(comparison),
        study_tables.blocks(comparison),
        Table("Not compared", ["what", "why"], [*lacking, *study_tables.damaged(comparison)]),
    ]
    return Report(
        question=collected.question or f"{' against '.join(comparison.arms)}",
        answers=_in_words(found, primary, failures),
        design=_design(comparison, collected),
        tables=[table for table in (*sides[1:], *tables) if table.rows],
        charts=[(title, path) for title, path in charts if path is not None],
        headline=study_tables.headline(found, primary),
        examples=sides[:1],
    )


def _in_words(found: Findings, primary: str, failures: dict[str, str]) -> list[str]:
    """The answer to the question, one sentence per arm, and its caveats."""
    comparison = found.comparison
    compared = [d for d in found.differences if d.name == primary]
    num_known = sum(each.is_known for each in compared)
    lines = [_sentence(each, comparison.baseline, num_known) for each in compared]
    if not lines:
        lines.append(_unanswered(comparison, primary))
    lines += [f"“{arm}” and “{comparison.baseline}”: {why}." for metric, arm, why in found.refused if metric == primary]
    counts = {each.arm: each.estimate.num_seeds for each in compared}
    if counts and min(counts.values()) == 1:
        lines.append("With one seed, the intervals do not include variation between seeds.")
    if counts and min(counts.values()) == 2:
        lines.append(
            "With two seeds, the variation between seeds is hardly known: intervals are often far too wide and "
            "sometimes too narrow (in simulations, up to 13 % of equal arms reach p < 0.05 instead of 5 %). Use at "
            "least three seeds."
        )
    if len(set(counts.values())) > 1:
        lines.append(f"Seeds compared: {', '.join(f'{count} of “{arm}”' for arm, count in counts.items())}.")
    lines += _on_checks(comparison.checks())
    if failures:
        lines.append(
            f"{len(failures)} {'trials have' if len(failures) > 1 else 'trial has'} no result; see “Not compared”."
        )
    if any(result.damaged for result in comparison.results.values()):
        lines.append("Some lines of the results could not be read; see “Not compared”.")
    return lines


def _on_checks(checks: list[Check]) -> list[str]:
    """Sentences on the conditions of the comparison that do not hold, or could not be checked."""
    lines = []
    if broken := [f"{check.what} ({check.why})" for check in checks if check.holds == "NO"]:
        lines.append(f"The arms differ in more than their settings: {'; '.join(broken)}.")
    if unknown := [check.what for check in checks if check.holds == "unknown"]:
        lines.append(f"Not recorded, so not checked: {', '.join(unknown)}.")
    return lines


def _unanswered(comparison: Comparison, primary: str) -> str:
    """Why nothing was compared."""
    if len(comparison.arms) == 1:
        return f"There is nothing to compare “{comparison.baseline}” with: add the results of a second arm."
    if not any(comparison.paired(arm) for arm in comparison.arms[1:]):
        return f"Nothing can be compared: no other arm has a result with the same seed as “{comparison.baseline}”."
    return f"The question cannot be answered: there are no comparable results for {title_of(shared_name(primary))}."


def _sentence(each: ArmDifference, base: str, num_known: int) -> str:
    """What was found about one arm."""
    if each.is_zero:
        return f"“{each.arm}” and “{base}” are identical in {title_of(each.metric)}, in every record and seed."
    if not each.is_known:
        return (
            f"“{each.arm}” cannot be tested against “{base}”: too few values, values that are not finite, or the same "
            "difference in every record."
        )
    among = f", adjusted for {num_known} comparisons" if num_known > 1 else ""
    interval = interval_of(each.metric, each.estimate, digits_of(each.before, each.after))
    sure = f"95 % interval of the difference {interval}; p {p_of(each.adjusted_p, is_sentence=True)}{among}"
    amount = difference_of(each.metric, each.before, each.after)
    if not each.is_found:
        return f"“{each.arm}” does not differ from “{base}” beyond noise: {amount} ({sure})."
    return f"“{each.arm}” is {each.verdict} than “{base}”: {amount} ({sure})."


def _design(comparison: Comparison, collected: Collected) -> list[str]:
    arms = dict.fromkeys((*comparison.arms, *collected.settings))  # those without a result too
    return [
        f"Arms: {', '.join(f'“{arm}”' for arm in arms)}; “{comparison.baseline}” is the baseline.",
        *(f"“{arm}”: {_shown(settings)}" for arm, settings in collected.settings.items()),
        f"Seeds: {'; '.join(f'“{arm}” {_listed(comparison.seeds(arm))}' for arm in comparison.arms)}.",
        f"Budget: {collected.budget}.",
        "Intervals cover both the seeds and the test records (two-way analysis of variance with Satterthwaite's "
        "degrees of freedom). Differences are paired by seed and record; p-values are adjusted by Holm's method for "
        "the number of arms.",
    ]


def _lines(found: Findings) -> Iterator[list[object]]:
    """Every mean and difference, a CSV row each."""
    yield ["what", "figure", "arm", "value", "low", "high", "p", "p_holm", "seeds", "records", "weight"]
    for metric, by_arm in found.means.items():
        for arm, (e, weight) in by_arm.items():
            yield ["mean", metric, arm, e.value, e.low, e.high, "", "", e.num_seeds, e.num_rows, weight]
    for d in found.differences:
        e, weight = d.estimate, found.means[d.name][d.arm][1]
        numbers = [e.value, e.low, e.high, e.p_value, d.adjusted_p, e.num_seeds, e.num_rows, weight]
        yield ["difference", d.name, d.arm, *numbers]


def _shown(settings: dict[str, Any]) -> str:
    return (
        ", ".join(f"{name} {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in settings.items())
        or "the base settings"
    )


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _parser() -> Arguments:
    parser = Arguments("report", __doc__, example="runs/loss_masks")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a study's folder, or run folders, the baseline first")
    parser.add_argument(
        "--output", help="folder of the report; default: that of the study or run, or a new one under runs/reports"
    )
    return parser
