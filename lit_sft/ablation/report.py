"""`python -m lit_sft report STUDY_OR_RUN...`: one page of what was compared, what was found and how sure it is."""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from lit_sft.ablation.charts import draw_curves, draw_differences
from lit_sft.ablation.collect import ANSWER_FIGURES, MORE_IS_BETTER, Comparison, Difference, read_trial
from lit_sft.ablation.report_page import render_html, render_markdown
from lit_sft.ablation.statistics import Estimate
from lit_sft.ablation.trials import read_json, result_of
from lit_sft.metrics import SEGMENTS


@dataclass(frozen=True)
class Table:
    """A table of a report: all cells are text.

    Attributes:
        title: Above it.
        header: Of its columns.
        rows: Its first column names them.
        notes: Below it.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What the pages show.

    Attributes:
        question: What was asked.
        answers: In plain words.
        design: What was run, a fact a line.
        tables: In order.
        charts: Titles and files.
    """

    question: str
    answers: list[str]
    design: list[str]
    tables: list[Table]
    charts: list[tuple[str, Path]]


def main(argv: list[str]) -> None:
    """Write a report.

    Args:
        argv: The command's name and its arguments.

    Raises:
        ValueError: If there is nothing to compare.
    """
    parser = argparse.ArgumentParser(prog="lit_sft report", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a study's folder, or run folders, the baseline first")
    parser.add_argument("--output", help="folder of the report; default: the first one's")
    options = parser.parse_args(argv[1:])
    folders = [Path(run) for run in options.runs]
    written = write_report(folders, Path(options.output) if options.output else None)
    Console().print(f"report  {written}", soft_wrap=True)


def write_report(folders: list[Path], output: Path | None = None) -> Path:
    """Write report.html, report.md, report.csv and the pictures.

    Returns:
        The page.

    Raises:
        ValueError: If there is nothing to compare.
    """
    is_study = len(folders) == 1 and (folders[0] / "trials").is_dir()
    comparison, facts, failures = read_study_folder(folders[0]) if is_study else read_runs(folders)
    if len(comparison.arms) < 2 or not comparison.seeds:
        lacking = "; ".join(f"{name}: {reason}" for name, reason in failures.items()) or "they have not been run"
        raise ValueError(
            f"{', '.join(map(str, folders))}: no two arms have a tested trial with the same seed ({lacking}). Run the "
            "study's command again, with --retry for what failed; runs of your own need `python -m lit_sft test`."
        )
    output = output or folders[0]
    output.mkdir(parents=True, exist_ok=True)
    report = make_report(comparison, facts, failures, output)
    (output / "report.md").write_text(render_markdown(report), encoding="utf-8")
    page = output / "report.html"
    page.write_text(render_html(report), encoding="utf-8")
    return page


def read_study_folder(folder: Path) -> tuple[Comparison, dict[str, str], dict[str, str]]:
    """The trials of a study, what it says of itself, and why trials failed."""
    found = read_json(folder / "study.json")
    if found is None:
        raise ValueError(f"{folder}: no study.json; a study's folder is what `ablate` writes.")
    failures, results = {}, {}
    for trial in found["trials"]:
        place = folder / "trials" / trial["folder"]
        failure = read_json(place / "failure.json")
        result = read_trial(result_of(place / "version_0", found["checkpoint"]), trial["arm"])
        if result is not None:
            results[trial["arm"], trial["seed"]] = result
        else:
            failures[f"{trial['arm']}, seed {trial['seed']}"] = failure["reason"] if failure else "not run yet"
    present = [arm for arm in found["arms"] if any(key[0] == arm for key in results)]
    facts = {key: str(found[key]) for key in ("question", "budget", "primary")}
    return Comparison(present, results), facts, failures


def read_runs(folders: list[Path]) -> tuple[Comparison, dict[str, str], dict[str, str]]:
    """Runs of the user's own: an arm is what stands in one folder, `runs/<arm>/version_N`."""
    results, failures = {}, {}
    for folder in folders:
        arm = folder.resolve().parent.name
        result = read_trial(folder / "result.json", arm)
        if result is None:
            failures[str(folder)] = "no result.json"
        elif (arm, result.seed) in results:
            failures[str(folder)] = f"a second run of {arm} with seed {result.seed}"
        else:
            results[arm, result.seed] = result
    facts = {"question": "", "budget": "each run's own", "primary": "answer"}
    return Comparison(list(dict.fromkeys(arm for arm, _ in results)), results), facts, failures


def make_report(comparison: Comparison, facts: dict[str, str], failures: dict[str, str], output: Path) -> Report:
    """Lay out what was found; draws the pictures and writes report.csv."""
    figures, differences, refused = _compared(comparison)
    _write_csv(output / "report.csv", comparison, figures, differences)
    charts = [
        ("Differences to the baseline", draw_differences(differences, facts["primary"], output / "differences.png")),
        ("Validation loss by step", draw_curves(comparison, facts["primary"], output / "curves.png")),
    ]
    losses = [name for name in figures if name not in ANSWER_FIGURES]
    answers = [name for name in figures if name in ANSWER_FIGURES]
    tables = [
        _checks(comparison),
        _matrix(comparison, losses, "Trained under, scored under: nats per token", " tokens"),
        _differences(differences, losses, comparison, "Losses: differences to"),
        _matrix(comparison, answers, "Generated answers", " answers"),
        _differences(differences, answers, comparison, "Generated answers: differences to"),
        _costs(comparison),
        _ledger(comparison),
        _samples(comparison),
        Table("Not compared", ["what", "why"], [[name, why] for name, why in [*refused.items(), *failures.items()]]),
    ]
    return Report(
        question=facts["question"] or f"{' against '.join(comparison.arms)}",
        answers=_in_words(comparison, facts["primary"], differences, failures),
        design=_design(comparison, facts),
        tables=[table for table in tables if table.rows],
        charts=[(title, path) for title, path in charts if path is not None],
    )


def _compared(comparison: Comparison) -> tuple[dict[str, dict[str, Estimate]], list[Difference], dict[str, str]]:
    """Means by figure and arm, all differences, and the figures that cannot be compared, with the reason."""
    means: dict[str, dict[str, Estimate]] = {}
    differences: list[Difference] = []
    refused: dict[str, str] = {}
    for figure in comparison.figures():
        try:
            means[figure] = {arm: comparison.mean(figure, arm) for arm in comparison.arms}
            differences += comparison.differences(figure)
        except ValueError as error:
            refused[_title(figure)] = str(error)
    return means, differences, refused


def _in_words(
    comparison: Comparison, primary: str, differences: list[Difference], failures: dict[str, str]
) -> list[str]:
    """The answer to the question: one sentence an arm."""
    base, said = comparison.arms[0], []
    for each in (d for d in differences if d.figure == primary):
        low, high = _signed(each.estimate.low), _signed(each.estimate.high)
        interval = f"{_signed(each.estimate.value)} (95 % interval {low} to {high}"
        among = f", adjusted for {len(comparison.arms) - 1} comparisons" if len(comparison.arms) > 2 else ""
        p = f"p {_p(each.adjusted_p) if each.adjusted_p < 0.001 else f'= {_p(each.adjusted_p)}'}{among})"
        if each.is_found:
            verdict = "better" if each.is_better else "worse"
            said.append(f"“{each.arm}” is {verdict} than “{base}” in {_title(primary)}: {interval}; {p}.")
        else:
            said.append(
                f"No difference was found between “{each.arm}” and “{base}” in {_title(primary)}: {interval}; {p}."
            )
    if not said:
        said.append(f"The question cannot be answered: {_title(primary)} is not among what can be compared.")
    if len(comparison.seeds) == 1:
        said.append("There is one seed: the intervals say nothing of what another would have given.")
    broken = [f"{what} {why}" for what, holds, why in comparison.checks() if not holds]
    if broken:
        said.append(f"The trials are not paired in everything: {'; '.join(broken)}.")
    if failures:
        said.append(f"{len(failures)} trials have no result; see the last table.")
    return said


def _design(comparison: Comparison, facts: dict[str, str]) -> list[str]:
    return [
        f"Arms: {', '.join(f'“{arm}”' for arm in comparison.arms)}; “{comparison.arms[0]}” is the baseline.",
        f"Seeds: {', '.join(map(str, comparison.seeds))}, a trial of every arm each.",
        f"Budget: {facts['budget']}.",
        "Intervals are over seeds and test records (two-way analysis of variance, Satterthwaite's degrees of freedom); "
        "differences are paired by seed and record, and their p-values adjusted by Holm's method among the arms.",
    ]


def _checks(comparison: Comparison) -> Table:
    rows = [[what, "yes" if holds else "NO", why] for what, holds, why in comparison.checks()]
    return Table("What pairing rests on", ["", "holds", ""], rows)


def _matrix(comparison: Comparison, figures: list[str], title: str, unit: str) -> Table:
    rows = []
    means = {figure: {arm: comparison.mean(figure, arm) for arm in comparison.arms} for figure in figures}
    for arm in comparison.arms:
        rows.append([arm, *(f"{means[f][arm].value:.4f} ±{means[f][arm].half_width:.4f}" for f in figures)])
    counts = {figure: comparison.weights(figure) for figure in figures}
    for arm in comparison.arms if figures else []:
        rows.append([f"{unit.strip()} scored, {arm}", *(f"{counts[f][1].sum():,.0f}" for f in figures)])
    rows += [["records", *(f"{len(counts[f][0]):,}" for f in figures)]] if figures else []
    notes = ["Compare within a column: every column is over tokens of its own."] if "token" in unit else []
    return Table(title, ["", *map(_title, figures)], rows if figures else [], notes)


def _differences(differences: list[Difference], figures: list[str], comparison: Comparison, title: str) -> Table:
    rows = [
        [
            each.arm,
            _title(each.figure),
            _signed(each.estimate.value),
            f"{_signed(each.estimate.low)} to {_signed(each.estimate.high)}",
            _p(each.estimate.p_value),
            _p(each.adjusted_p),
            _verdict(each),
        ]
        for each in differences
        if each.figure in figures
    ]
    header = ["arm", "figure", "difference", "95 % interval", "p", "p, Holm", "found"]
    return Table(f"{title} {comparison.arms[0]}", header, rows)


def _verdict(each: Difference) -> str:
    if not each.is_found:
        return "none"
    if each.figure in ANSWER_FIGURES and each.figure not in MORE_IS_BETTER:
        return "more" if each.estimate.value > 0 else "less"
    return "better" if each.is_better else "worse"


def _costs(comparison: Comparison) -> Table:
    names = ["steps", "examples", "tokens", "supervised tokens", "seconds of training", "tokens/s", "peak memory"]
    rows = []
    for arm in comparison.arms:
        records = [comparison.results[arm, seed].record for seed in comparison.seeds]
        if not all(records):
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
        result = comparison.results[arm, comparison.seeds[0]].result
        ledger = result.get("ledger", {}).get("train", {})
        values = [ledger.get(name, "") for name in names]
        # some are counted by mask, some stand beside examples of them
        rows.append(
            [arm, *(str(v.get(result["mask"], v.get("count", "")) if isinstance(v, dict) else v) for v in values)]
        )
    return Table("Training records", ["", *(name.replace("_", " ") for name in names)], rows)


def _samples(comparison: Comparison) -> Table:
    seed = comparison.seeds[0]
    samples = {arm: comparison.results[arm, seed].samples for arm in comparison.arms}
    prompts = [prompt for prompt in samples[comparison.arms[0]] if all(prompt in found for found in samples.values())]
    rows = [[prompt, *(samples[arm][prompt] for arm in comparison.arms)] for prompt in prompts]
    return Table(f"The same prompts, at the end, seed {seed}", ["prompt", *comparison.arms], rows)


def _write_csv(
    path: Path, comparison: Comparison, means: dict[str, dict[str, Estimate]], differences: list[Difference]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["what", "figure", "arm", "value", "low", "high", "p", "p_holm", "seeds", "records", "weight"])
        for figure, by_arm in means.items():
            weight = comparison.weights(figure)[1].sum()
            for arm, e in by_arm.items():
                writer.writerow(["mean", figure, arm, e.value, e.low, e.high, "", "", e.num_seeds, e.num_rows, weight])
        for d in differences:
            e, weight = d.estimate, comparison.weights(d.figure)[1].sum()
            row = [e.value, e.low, e.high, e.p_value, d.adjusted_p, e.num_seeds, e.num_rows, weight]
            writer.writerow(["difference", d.figure, d.arm, *row])


def _title(figure: str) -> str:
    known = {
        "rougeL_mixed": "ROUGE-L (words; Chinese by character)",
        "exact_match": "exact match",
        "ended": "ended by itself",
        "repetition": "repeated 4-grams",
        "num_tokens": "tokens of an answer",
    }
    figure, _, file = figure.partition(" in ")
    if file:
        return f"{figure.replace('_', ' ')} mask, {file}"
    kind = " mask" if figure not in SEGMENTS else "s" if figure.endswith("token") else " tokens"
    return known.get(figure, figure.replace("_", " ") + kind)


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
