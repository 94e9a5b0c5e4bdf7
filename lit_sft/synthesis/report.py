"""The page of a synthesis and its datasheet, from the files of its folder."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import counted
from lit_sft.files import read_json, write_text
from lit_sft.reporting.page import Cell, Finding, Report, Table, render_html
from lit_sft.synthesis.charts import draw_costs, draw_lengths, draw_yield
from lit_sft.synthesis.datasheet import datasheet
from lit_sft.synthesis.results import PAIRS, REFUSED, SUMMARY
from lit_sft.synthesis.survey import Example, Survey, quantiles, survey_of
from lit_sft.synthesis.wording import stopped_in_words, tokens_in_words, whole_of

REPORT, DATASHEET = "report.html", "datasheet.md"

_MILLION = 1_000_000
_MOST_TERMS = 30

Summary = Mapping[str, Any]
Rows = list[list[Cell]]


def write_report(folder: Path) -> Path:
    """Write the page and the datasheet of a folder; returns the page.

    Args:
        folder: A folder that `synthesize` wrote.

    Raises:
        UserError: If a file is missing or damaged.
    """
    summary = read_json(folder / SUMMARY, advice="run `synthesize` again")
    if summary is None:
        raise UserError(f"{folder / SUMMARY}: no such file; expected a folder that `synthesize` wrote.")
    survey = survey_of(folder, pairs=PAIRS, refused=REFUSED)
    with tempfile.TemporaryDirectory() as pictures:
        page = render_html(_report(summary, survey, Path(pictures)))
    write_text(folder / REPORT, page)
    write_text(folder / DATASHEET, datasheet(summary, survey))
    return folder / REPORT


def _report(summary: Summary, survey: Survey, pictures: Path) -> Report:
    tables = [
        _rules(summary),
        _reasons(survey),
        _lengths(survey),
        _kinds(survey),
        _terms(survey),
        _per_article(survey, whole_of(summary)),
        _failures(summary),
        _invalid(summary["invalid"]),
        _attempts(summary),
        _usage(summary),
    ]
    names = [rule["name"] for rule in summary["rules"] if rule["name"] in survey.refused]
    whole = whole_of(summary)
    refused = [_refused(name, whole, survey.refused[name].examples()) for name in names]
    return Report(
        question=f"Instruction data: recipe {summary['recipe']['name']}, model {summary['model']['name']}",
        answers=_in_words(summary),
        design=_design(summary),
        tables=[table for table in tables if table.rows],
        charts=_charts(summary, survey, pictures),
        headline=_headline(summary),
        examples=[table for table in (_accepted(survey, whole), *refused) if table.rows],
    )


def _in_words(summary: Summary) -> list[str]:
    """What was made of what, and what it cost."""
    subjects, pairs, kind = summary["subjects"], summary["pairs"], summary["subject"]
    accepted, read, done = pairs["accepted"], pairs["read"], f"{subjects['accepted']:,} of {subjects['read']:,}"
    lines = [
        f"{accepted:,} of {counted(read, 'conversation')} that the model wrote {'was' if accepted == 1 else 'were'} "
        f"accepted ({accepted / read:.0%}), from {done} {kind if subjects['read'] == 1 else f'{kind}s'}."
        if read
        else f"The model wrote no conversation, about {counted(subjects['read'], kind)}."
    ]
    left = {name: subjects[name] for name in ("refused", "failed", "not_reached") if subjects[name]}
    if left:
        words = {"refused": "without an accepted conversation", "failed": "failed", "not_reached": "not reached"}
        lines.append(f"Of the other {kind}s, {', '.join(f'{num:,} {words[name]}' for name, num in left.items())}.")
    lines.append(_cost_in_words(summary))
    if (most := max(summary["rules"], key=lambda rule: rule["refused"], default=None)) and most["refused"]:
        lines.append(f"The rule that refused most is {most['name']}: {counted(most['refused'], 'conversation')}.")
    if summary["stopped"]:
        lines.append(stopped_in_words(summary["stopped"]))
    return lines


def _cost_in_words(summary: Summary) -> str:
    usage, accepted = summary["usage"], summary["pairs"]["accepted"]
    tokens = tokens_in_words(usage)
    if usage["cost"] is None:
        both = usage["tokens_read"] + usage["tokens_written"]
        is_whole = accepted and not usage["unmetered"]
        each = f", {round(both / accepted):,} tokens for each accepted conversation" if is_whole else ""
        why = "the endpoint did not report all tokens" if summary["prices"] else "no prices are set"
        return f"{tokens[0].upper()}{tokens[1:]}{each}. The cost is unknown: {why}."
    each = f", {money(usage['cost'] / accepted)} {usage['currency']} for each accepted conversation" if accepted else ""
    return f"The replies cost {money(usage['cost'])} {usage['currency']}{each}: {tokens}."


def money(amount: float) -> str:
    """An amount of money with at least two decimals, and three digits that tell it apart from zero."""
    digits = 2 if amount >= 1 or not amount else min(12, 2 - math.floor(math.log10(amount)))
    return f"{amount:,.{digits}f}"


def _headline(summary: Summary) -> Table:
    subjects, kind = summary["subjects"], summary["subject"]
    rows: Rows = [
        ["conversations", *(f"{summary['pairs'][name]:,}" for name in ("read", "accepted", "refused")), "", ""],
        [f"{kind}s", *(f"{subjects[name]:,}" for name in ("read", "accepted", "refused", "failed", "not_reached"))],
    ]
    notes = [
        f"{'An' if kind == 'article' else 'A'} {kind} counts as accepted if at least one of its conversations was, as "
        "refused if none was, and as not reached if the run stopped before the model had answered about it."
    ]
    return Table("Totals", ["", "read", "accepted", "refused", "failed", "not reached"], rows, notes)


def _rules(summary: Summary) -> Table:
    rows: Rows = [
        [rule["name"], f"{rule['judged']:,}", f"{rule['refused']:,}", _percent(rule), str(rule["what"])]
        for rule in summary["rules"]
    ]
    notes = ["A conversation is refused by the first rule that objects; later rules do not see it."]
    return Table("Yield by rule", ["rule", "judged", "refused", "share", "what it refuses"], rows, notes)


def _reasons(survey: Survey) -> Table:
    rows: Rows = [[f"{num:,}", rule, reason] for (rule, reason), num in survey.reasons.most_common(_MOST_TERMS)]
    return Table("Refused by reason", ["conversations", "rule", "reason"], rows, is_text=True)


def _percent(rule: Mapping[str, Any]) -> str:
    return f"{rule['refused'] / rule['judged']:.1%}" if rule["judged"] else ""


def _lengths(survey: Survey) -> Table:
    rows: Rows = []
    for what, lengths in (("questions", survey.question_lengths), ("answers", survey.answer_lengths)):
        for language, counts in sorted(lengths.items()):
            unit = "characters" if language == "zh" else "words"
            found = (f"{each:,}" for each in quantiles(counts, 0, 0.05, 0.5, 0.95, 1))
            rows.append([f"{what}, {language}", f"{counts.total():,}", unit, *found])
    return Table("Lengths", ["", "number", "in", "shortest", "5 %", "median", "95 %", "longest"], rows)


def _kinds(survey: Survey) -> Table:
    total = survey.kinds.total()
    rows: Rows = [[kind, f"{num:,}", f"{num / total:.1%}"] for kind, num in survey.kinds.most_common()]
    return Table("What questions ask for", ["kind", "questions", "share"], rows)


def _terms(survey: Survey) -> Table:
    rows: Rows = [[term, f"{num:,}"] for term, num in survey.terms.most_common(_MOST_TERMS)]
    notes = ["Words with content in questions; in Chinese, pairs of characters."]
    return Table("Topics: the most frequent words of questions", ["words", "times"], rows, notes)


def _per_article(survey: Survey, whole: str) -> Table:
    rows: Rows = [[f"{num:,}", f"{articles:,}"] for num, articles in sorted(survey.per_article.items())]
    name = f"Accepted conversations of {'an' if whole == 'article' else 'a'} {whole}"
    return Table(name, ["conversations", f"{whole}s"], rows)


def _failures(summary: Summary) -> Table:
    reasons = summary.get("first_reasons", {})  # unknown in folders of earlier versions
    rows: Rows = [[str(fault), f"{num:,}", str(reasons.get(fault, ""))] for fault, num in summary["failures"].items()]
    return Table(f"{summary['subject'].capitalize()}s that failed", ["fault", "number", "the first"], rows)


def _invalid(faults: Mapping[str, int]) -> Table:
    rows: Rows = [[str(fault), f"{num:,}"] for fault, num in faults.items()]
    return Table("Replies without the form of the recipe", ["what was wrong", "number"], rows)


def _attempts(summary: Summary) -> Table:
    rows: Rows = [[number, f"{num:,}"] for number, num in summary["attempts"].items()]
    return Table("Replies by attempt", ["attempt", "replies"], rows)


def _usage(summary: Summary) -> Table:
    # who paid for a reply, this process or an earlier one, changes with every start, and the page must not
    usage = {name: value for name, value in summary["usage"].items() if name not in ("calls", "from_journal")}
    if usage["unmetered"]:
        usage |= {"tokens_read": None, "tokens_written": None}
    rows: Rows = [[name.replace("_", " "), _shown(value)] for name, value in usage.items()]
    return Table("Replies and their cost", ["", "number"], rows)


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else money(value) if isinstance(value, float) else str(value)


def _accepted(survey: Survey, whole: str) -> Table:
    rows: Rows = [[example.article, *_as_text(example)] for example in survey.accepted.examples()]
    return Table("Accepted: a sample", [whole, "question", "answer"], rows, is_text=True)


def _refused(name: str, whole: str, examples: list[Example]) -> Table:
    rows: Rows = [[example.article, *_as_text(example), Finding(example.reason, -1)] for example in examples]
    header = [whole, "question", "answer", "why"]
    return Table(f"Refused by {name}: a sample", header, rows, is_text=True)


def _as_text(example: Example) -> tuple[str, str]:
    """Questions and answers of an example; those of several turns are numbered."""
    if len(example.turns) == 1:
        return example.turns[0]
    questions, answers = (
        " ".join(f"{number}. {turn[place]}" for number, turn in enumerate(example.turns, 1)) for place in (0, 1)
    )
    return questions, answers


def _design(summary: Summary) -> list[str]:
    recipe, model = summary["recipe"], summary["model"]
    lines = [
        f"Recipe {recipe['name']} (digest {recipe['digest']}): {recipe['about']}",
        f"Model {model['name']} at {model['place']}: "
        + ", ".join(f"{name} {value}" for name, value in model.items() if name not in ("name", "place")),
        f"Read from {', '.join(map(str, summary['sources']))}",
    ]
    if (invalid := summary["invalid_records"])["count"]:
        lines.append(f"{counted(invalid['count'], 'record')} could not be read, first: {invalid['first'][0]}")
    return [*lines, "All settings are in config.yaml, in the same folder."]


def _charts(summary: Summary, survey: Survey, pictures: Path) -> list[tuple[str, Path]]:
    lengths = {"questions": survey.question_lengths, "answers": survey.answer_lengths}
    accepted, rules = summary["pairs"]["accepted"], summary["rules"]
    points, unit = _costs(summary)
    judged = any(rule["name"] == "judge" for rule in rules)
    charts = [
        (
            "Where the conversations went",
            draw_yield(accepted, rules, pictures / "yield.png"),
        ),
        ("How long questions and answers are", draw_lengths(lengths, pictures / "lengths.png")),
        (
            f"What they cost as the run went on{', without the calls of the judge' * judged}",
            draw_costs(points, unit, pictures / "costs.png"),
        ),
    ]
    return [(title, path) for title, path in charts if path is not None]


def _costs(summary: Summary) -> tuple[list[tuple[float, float]], str]:
    """Accepted conversations and their cost as the run goes on, in money if prices are known, else in tokens."""
    if summary["usage"]["unmetered"]:
        return [], ""
    prices = summary["prices"] or {"read": _MILLION, "written": _MILLION, "currency": "tokens"}
    points = [
        (accepted, (read * prices["read"] + written * prices["written"]) / _MILLION)
        for _, _, accepted, read, written in summary["curve"]
    ]
    return points, prices["currency"]
