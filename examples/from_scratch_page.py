"""The page of `make from-scratch`: what pretraining bought. Every figure is read from the files of the runs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from article_facts import STATED, WITHHELD
from from_scratch_charts import draw_examples, draw_pretraining

from data_modules.errors import UserError
from data_modules.progress import duration
from lit_sft.ablation.collect import read_study_folder
from lit_sft.ablation.comparison import ArmDifference, Comparison, Findings
from lit_sft.ablation.run_files import TrialResult
from lit_sft.files import read_json, read_rows
from lit_sft.reporting.formatting import GLOSSARY, interval_of, value_of
from lit_sft.reporting.page import Cell, Report, Table, write_pages
from lit_sft.reporting.statistics import estimate

STUDY = "fine_tuning"
SCRATCH, PRETRAINED = "random weights", "pretrained"
RULES = {
    "control_characters": "control_characters",
    "decomposed_letters": "nfc",
    "tags": "tags",
    "conversion_marks": "conversion_markup",
    "wide_digits": "latin_width",
    "heading": "first_heading",
    "boilerplate": "boilerplate_lines",
    "empty_brackets": "empty_brackets",
    "narrow_punctuation": "punctuation_width",
    "stubs": "min_length",
    "repetitions": "repetition",
    "exact_copies": "exact_duplicates",
    "near_copies": "near_duplicates",
}
"""The cleaning rule that should find each planted fault."""
_SHOWN = 6


@dataclass(frozen=True)
class Pair:
    """The trials from random weights and from the pretrained model with the same share of the examples.

    Attributes:
        share: Share of the training examples.
        scratch: Name of the arm from random weights.
        pretrained: Name of the arm from the pretrained model.
        exact: Difference in exact answers, paired by seed and question.
        comparison: All their trials.
    """

    share: float
    scratch: str
    pretrained: str
    exact: ArmDifference
    comparison: Comparison

    @property
    def examples(self) -> int:
        """Training examples."""
        ledger = next(iter(self.comparison.results.values())).result["ledger"]["train"]
        return int(ledger["examples"])


def write_page(folder: Path) -> Path:
    """Write report.html and report.md.

    Args:
        folder: Folder of all stages.

    Raises:
        UserError: If a stage has left no result.
    """
    run, pairs = folder / "pretraining" / "version_0", read_pairs(folder / STUDY)
    fit = _json(run / "fit.json")
    curve = read_rows(run / "perplexity.jsonl").rows
    charts = [
        ("Exact answers to held-out questions, by number of examples, with 95 % intervals",
         draw_examples(pairs, folder / "examples.png")),
        ("Bits per byte on held-out articles while pretraining",
         draw_pretraining([(int(row["step"]), bits_of(fit, row["val_nll"])) for row in curve], folder / "curve.png")),
    ]  # fmt: skip
    report = Report(
        question="What did pretraining buy?",
        answers=_answers(folder, fit, pairs),
        design=_design(folder),
        tables=[*_facts(folder, pairs), cleaning(folder), _tokenizer(folder), _evaluation(folder), stages(folder)],
        charts=charts,
        headline=_headline(pairs),
        examples=[_continuations(run), _side_by_side(pairs)],
    )
    return write_pages(report, folder)


def read_pairs(study: Path) -> list[Pair]:
    """The arms of the study in pairs, those with the most examples first."""
    found = read_study_folder(study)
    pairs = []
    for scratch in (arm for arm in found.arms if arm.startswith(SCRATCH)):
        share = float(found.settings[scratch]["data.train_fraction"])
        pretrained = scratch.replace(SCRATCH, PRETRAINED)
        results = {key: result for key, result in found.results.items() if key[0] in (scratch, pretrained)}
        comparison = Comparison([scratch, pretrained], results, found.settings)
        exact = [each for each in Findings(comparison).differences if each.name == "exact_match"]
        if not exact:
            raise UserError(f"{study}: no exact answers of “{scratch}” and “{pretrained}” with the same seed.")
        pairs.append(Pair(share, scratch, pretrained, exact[0], comparison))
    return sorted(pairs, key=lambda pair: -pair.share)


def bits_of(fit: dict[str, Any], nats: float) -> float:
    """Convert the nats per token of a validation to bits per byte; every validation scores the same tokens."""
    return float(nats) * fit["last"]["bits_per_byte/text"] / fit["last"]["nll/text"]


def _answers(folder: Path, fit: dict[str, Any], pairs: list[Pair]) -> list[str]:
    before, after = (fit[when]["bits_per_byte/text"] for when in ("before", "last"))
    whole, least = pairs[0], pairs[-1]
    lines = [
        f"Pretraining lowered bits per byte on articles that the model has not seen from {before:.3f} to {after:.3f}.",
        _sentence(whole, f"Fine-tuned on all {whole.examples:,} examples"),
    ]
    lines += [_sentence(pair, f"With {pair.share:.0%} of them") for pair in pairs[1:]]
    if least.share < 1:
        few, many = least.exact.after, whole.exact.before
        lines.append(
            f"The pretrained model answers {few:.1%} exactly with {least.share:.0%} of the examples; random weights "
            f"answer {many:.1%} with all of them."
        )
    return lines


def _sentence(pair: Pair, opening: str) -> str:
    each = pair.exact
    verdict = "" if each.is_found else ", which is within noise"
    seeds, questions = each.estimate.num_seeds, each.estimate.num_rows
    if each.is_zero:
        return f"{opening}, both answer the same {each.after:.1%} of the held-out questions exactly."
    interval = interval_of("exact_match", each.estimate) or "unknown"
    return (
        f"{opening}, the pretrained model answers {each.after:.1%} of the held-out questions exactly, random weights "
        f"{each.before:.1%}: {100 * each.estimate.value:+.1f} points (95 % interval {interval}; paired, {seeds} seeds, "
        f"{questions} questions){verdict}."
    )


def _headline(pairs: list[Pair]) -> Table:
    rows: list[list[Cell]] = []
    for metric, name in (("exact_match", "exact answers"), ("answer", "nats per answer token")):
        for pair in pairs:
            each = next(found for found in Findings(pair.comparison).differences if found.name == metric)
            rows.append([f"{name}, {pair.share:.0%} of the examples", *each.cells()[:4], each.finding])
    header = ["", "from random weights", "from the pretrained model", "difference", "95 % interval", ""]
    return Table("Fine-tuning with the same budget", header, rows, [GLOSSARY["nll"], _note(pairs[0])])


def _note(pair: Pair) -> str:
    each = pair.exact.estimate
    return f"Means over {each.num_seeds} seeds and {each.num_rows} held-out questions; differences are paired by both."


def _facts(folder: Path, pairs: list[Pair]) -> list[Table]:
    """Exact answers by whether the articles state the fact that is asked for."""
    questions = _json_list(folder / "articles" / "questions.json")
    standing = {(row["instruction"], row["input"]): row["standing"] for row in questions}
    records = _json_list(Path("examples/world/test.json"))
    by_line = {number: standing[row["instruction"], row["input"]] for number, row in enumerate(records, start=2)}
    rows: list[list[Cell]] = []
    for pair in pairs:
        for group in dict.fromkeys((STATED, WITHHELD, *by_line.values())):
            rows.append([f"{group}, {pair.share:.0%} of the examples", *_group(pair, by_line, group)])
    note = (
        "On facts that are in no article, only what the model learnt about the language can help. No article contains "
        "a question, or the sentence that answers it."
    )
    header = ["", "from random weights", "from the pretrained model", "difference", "95 % interval", "questions"]
    return [Table("Exact answers by what the articles state", header, rows, [note])]


def _group(pair: Pair, by_line: dict[int, str], group: str) -> list[Cell]:
    """Both arms' exact answers to one group of questions."""
    seeds = pair.comparison.paired(pair.pretrained)
    arms = (pair.comparison.trials(arm, seeds=seeds) for arm in (pair.scratch, pair.pretrained))
    tables = [_exact(trials, by_line, group) for trials in arms]
    found = estimate(tables[1] - tables[0], np.ones(tables[0].shape[1]))
    before, after = (float(table.mean()) for table in tables)
    change, interval = f"{100 * found.value:+.1f}", interval_of("exact_match", found)
    return [f"{before:.1%}", f"{after:.1%}", change, interval, str(tables[0].shape[1])]


def _exact(trials: list[TrialResult], by_line: dict[int, str], group: str) -> np.ndarray:
    """Whether each question of a group was answered exactly, (seeds, questions)."""
    origins = [origin for origin in sorted(trials[0].sums["exact_match"]) if by_line[line_of(origin)] == group]
    return np.array([[trial.sums["exact_match"][origin][0] for origin in origins] for trial in trials])


def line_of(origin: str) -> int:
    """The line of a test record."""
    return int(origin.split(", ")[0].rpartition(":")[2])


def cleaning(folder: Path) -> Table:
    """What every cleaning rule did, next to the faults that were planted for it."""
    ledger = _json(folder / "pretraining" / "version_0" / "ledger.json")["train"]["cleaning"]
    planted = _json(folder / "articles" / "planted.json")
    by_rule: dict[str, int] = {}
    for counts in planted.values():
        for fault, count in counts.items():
            if fault in RULES:
                by_rule[RULES[fault]] = by_rule.get(RULES[fault], 0) + count
    rows: list[list[Cell]] = []
    for rule, counts in ledger["rules"].items():
        name = rule.partition("(")[0].strip()
        example = counts["examples"][0] if counts["examples"] else {}
        shown = " → ".join(filter(None, (example.get("before"), example.get("after") or example.get("reason"))))
        numbers = [counts["changed"] + counts["dropped"], by_rule.get(name, 0)]
        sizes = [counts["removed"] - counts["added"] + counts["dropped_characters"]]
        rows.append([rule, *(f"{number:,}" for number in (*numbers, *sizes)), shown])
    kept = f"{ledger['records_kept']:,} of {ledger['records_read']:,} articles kept"
    note = f"{kept}, {ledger['characters_kept']:,} of {ledger['characters_read']:,} characters."
    more = "`white_space` removes what other rules leave behind; no fault was planted for it."
    header = ["rule", "articles changed or dropped", "articles planted", "characters removed", "first example"]
    return Table("Cleaning: what was found, and what was planted", header, rows, [note, more])


def _tokenizer(folder: Path) -> Table:
    """What the tokenizer was trained on, and how much text a token stands for."""
    training = _json(folder / "tokenizer" / "training.json")
    tokens = _json(folder / "pretraining" / "version_0" / "fit.json")["last"]
    size = tokens["nll/text"] / tokens["bits_per_byte/text"] / np.log(2)
    rows: list[list[Cell]] = [
        ["entries", f"{training['entries']:,}"],
        ["merges", f"{training['merges']:,}"],
        ["bytes of text", f"{training['used_bytes']:,}"],
        ["words are split as", str(training["settings"]["pre_tokenizer"])],
        ["bytes per token of held-out articles", f"{size:.2f}"],
    ]
    return Table("The tokenizer", ["", ""], rows)


def _evaluation(folder: Path) -> Table:
    """Bits per byte of each model on the held-out articles of both languages."""
    figures = _json(folder / "evaluation" / "results.json")["figures"]
    rows: list[list[Cell]] = []
    for name in next(iter(figures.values())):
        found = [of_model.get(name, {}).get("bits_per_byte") for of_model in figures.values()]
        if all(found):
            rows.append([name, *(value_of("bits_per_byte", each["value"], 3) for each in found)])
    notes = [
        "base: pretrained only; tuned: fine-tuned from it; scratch: fine-tuned from random weights. "
        "Seed 0, all examples."
    ]
    title = "How much of pretraining is left after fine-tuning: bits per byte"
    return Table(title, ["", *figures], rows, [*notes, GLOSSARY["bits_per_byte"]])


def stages(folder: Path) -> Table:
    """How long each stage took."""
    record = _json(folder / "stages.json")
    rows: list[list[Cell]] = [[name, duration(each["seconds"])] for name, each in record.items()]
    rows.append(["all", duration(sum(each["seconds"] for each in record.values()))])
    return Table("Time", ["stage", "time"], rows)


def _continuations(run: Path) -> Table:
    """How the model continues the beginnings of articles, before and after pretraining."""
    rows = read_rows(run / "samples.jsonl").rows
    first, last = (pick(row["step"] for row in rows) for pick in (min, max))
    by_step = {step: {row["prompt"]: row["answer"] for row in rows if row["step"] == step} for step in (first, last)}
    cells: list[list[Cell]] = [
        [prompt, by_step[first][prompt], by_step[last][prompt]] for prompt in by_step[last] if prompt in by_step[first]
    ]
    header = ["beginning", "random weights", "pretrained"]
    return Table("The pretrained model continues a text", header, cells[:_SHOWN], is_text=True)


def _side_by_side(pairs: list[Pair]) -> Table:
    """Answers to held-out questions from both starts, with the fewest examples: first those that differ."""
    pair = pairs[-1]
    seed = pair.comparison.paired(pair.pretrained)[0]
    scratch, pretrained = (pair.comparison.results[arm, seed] for arm in (pair.scratch, pair.pretrained))
    records = _json_list(Path("examples/world/test.json"))
    rows: list[list[Cell]] = []
    for origin in sorted(scratch.answers, key=lambda each: scratch.answers[each][1] == pretrained.answers[each][1]):
        record = records[line_of(origin) - 2]
        question = " ".join(filter(None, (record["instruction"], record["input"])))
        rows.append([question, record["output"], scratch.answers[origin][1], pretrained.answers[origin][1]])
    header = ["question", "right answer", "from random weights", "from the pretrained model"]
    step = max(1, len(rows) // _SHOWN)
    title = f"Answers after fine-tuning on {pair.share:.0%} of the examples, seed {seed}"
    return Table(title, header, rows[::step][:_SHOWN], is_text=True)


def _design(folder: Path) -> list[str]:
    planted = _json(folder / "articles" / "planted.json")
    articles = ", ".join(f"{counts['articles']:,} {language.capitalize()}" for language, counts in planted.items())
    blocks = _json(folder / "pretraining" / "version_0" / "ledger.json")["train"]["blocks"]
    steps = _json(folder / "pretraining" / "version_0" / "fit.json")["steps"]
    return [
        f"Articles: {articles}, written by examples/build_articles.py; held-out articles are different ones, "
        "written in the same way.",
        f"Pretraining: {steps:,} steps on {blocks['kept']:,} tokens in {blocks['blocks']:,} blocks an epoch "
        "(configs/pretrain/world.yaml).",
        "Fine-tuning: the same model, tokenizer, examples, order, steps and learning rate from both starts "
        "(configs/ablation/from_scratch.yaml).",
        "With all examples, the facts that test questions ask for are among them, in other words; "
        "examples/README.md says what articles and questions have in common.",
        "Intervals cover seeds and questions (two-way analysis of variance with Satterthwaite's degrees of freedom).",
    ]


def _json(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if found is None:
        raise UserError(f"{path}: no such file; run `make from-scratch` again.")
    return found


def _json_list(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows
