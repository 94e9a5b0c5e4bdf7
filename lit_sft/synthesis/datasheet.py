"""The datasheet of instruction data: what is in it, how it was made, what it must not be used for.

Source of the questions: Gebru et al., "Datasheets for Datasets", Communications of the ACM 64 (12), 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_modules.wording import counted
from lit_sft.reporting.page import escaped_markdown
from lit_sft.synthesis.survey import Survey, quantiles
from lit_sft.synthesis.wording import stopped_in_words, tokens_in_words

_MISSING = "*Not recorded. Write it here before you publish the data.*"


def datasheet(summary: Mapping[str, Any], survey: Survey) -> str:
    """The datasheet as Markdown; whatever comes from files and models is escaped.

    Args:
        summary: The summary of the run.
        survey: What its conversations look like.
    """
    name = escaped_markdown(str(summary["recipe"]["name"]))
    model = escaped_markdown(str(summary["model"]["name"]))
    sections = {
        "Motivation": ["Why the data was made, and who paid for it: " + _MISSING],
        "Composition": _composition(summary, survey),
        "How it was made": _making(summary),
        "What was checked": _checks(summary),
        "Uses": _uses(summary),
        "Distribution": [
            f"Licences of the {_sources(summary)} and the terms of {model}, which may restrict what its output is used "
            f"for: {_MISSING}"
        ],
        "Maintenance": [
            "The folder keeps every reply (`journal.jsonl`). `synthesize` with `--offline true` applies other checks "
            "to them without asking again; `config.yaml` has all settings."
        ],
    }
    parts = [f"# Datasheet: {name} by {model}", _summary_line(summary)]
    for title, paragraphs in sections.items():
        parts += [f"## {title}", *paragraphs]
    return "\n\n".join(parts) + "\n"


def _summary_line(summary: Mapping[str, Any]) -> str:
    pairs, subjects = summary["pairs"], summary["subjects"]
    about = {"request": "for", "question": "in answer to"}.get(summary["subject"], "about")
    stopped = f" {escaped_markdown(stopped_in_words(str(summary['stopped'])))}" if summary["stopped"] else ""
    return (
        f"{counted(pairs['accepted'], 'conversation')} that a language model wrote {about} "
        f"{counted(subjects['accepted'], summary['subject'])}. No person has read them.{stopped}"
    )


def _composition(summary: Mapping[str, Any], survey: Survey) -> list[str]:
    languages = ", ".join(f"{num:,} {escaped_markdown(name)}" for name, num in survey.languages.most_common())
    turns = ", ".join(f"{num:,} of {counted(turns, 'turn')}" for turns, num in sorted(survey.turns.items()))
    kinds = ", ".join(f"{kind} {num / survey.kinds.total():.0%}" for kind, num in survey.kinds.most_common())
    lines = [
        f"- conversations by language: {languages or 'none'}",
        f"- by length: {turns or 'none'}",
        f"- what questions ask for: {kinds or 'none'}",
        *_lengths(survey),
    ]
    record = (
        "Each line of `pairs.jsonl` is a conversation with `messages`, the `article_id` by which splits keep an "
        "article together, and `provenance`: article, file and line, span and digest of the text and the record that "
        "it is about, where there are any, recipe and its digest, model, temperature, attempt, and the checks that it "
        "passed."
    )
    return [record, "\n".join(lines)]


def _lengths(survey: Survey) -> list[str]:
    lines = []
    for what, lengths in (("questions", survey.question_lengths), ("answers", survey.answer_lengths)):
        for language, counts in sorted(lengths.items()):
            low, middle, high = quantiles(counts, 0.05, 0.5, 0.95)
            unit = "characters" if language == "zh" else "words"
            shown = escaped_markdown(language)
            lines.append(f"- {what} ({shown}): median {middle:,} {unit}; 90 % have {low:,} to {high:,}")
    return lines


def _making(summary: Mapping[str, Any]) -> list[str]:
    recipe, model, usage = summary["recipe"], summary["model"], summary["usage"]
    subjects, kind, invalid = summary["subjects"], summary["subject"], sum(summary["invalid"].values())
    parts = " or parts of articles" if kind == "article" else ""
    sources = "\n".join(f"- {escaped_markdown(str(source))}" for source in summary["sources"])
    sampling = ", ".join(f"{key} {value}" for key, value in model.items() if key not in ("name", "place"))
    cost = "unknown" if usage["cost"] is None else f"{usage['cost']:,.4f} {usage['currency']}"
    return [
        f"Recipe `{escaped_markdown(str(recipe['name']))}`, digest {recipe['digest']}: "
        f"{escaped_markdown(str(recipe['about']))}",
        f"Model {escaped_markdown(str(model['name']))} at {escaped_markdown(str(model['place']))}; "
        f"{escaped_markdown(sampling)}.",
        f"Sources:\n\n{sources}",
        f"Of {counted(subjects['read'], kind)}{parts}, {subjects['accepted']:,} gave at least one "
        f"accepted conversation, {subjects['refused']:,} none, {subjects['failed']:,} failed, and "
        f"{subjects['not_reached']:,} were not reached.",
        f"{counted(invalid, 'reply', 'replies')} did not have the form that the recipe asks for; such a reply is asked "
        "for again a limited number of times (`attempts`).",
        f"Replies: {tokens_in_words(usage)}; cost: {cost}.",
    ]


def _sources(summary: Mapping[str, Any]) -> str:
    """What the conversations were made from."""
    names = {"article": "articles", "request": "seed tasks", "pair": "pairs and their articles"}
    return names.get(str(summary["subject"]), "questions")


def _checks(summary: Mapping[str, Any]) -> list[str]:
    pairs = summary["pairs"]
    rows = [
        f"| {escaped_markdown(str(rule['name']))} | {rule['judged']:,} | {rule['refused']:,} "
        f"| {escaped_markdown(str(rule['what']))} |"
        for rule in summary["rules"]
    ]
    table = "\n".join(["| rule | judged | refused | what it refuses |", "|---|---|---|---|", *rows])
    return [
        f"{pairs['refused']:,} of {counted(pairs['read'], 'conversation')} were refused; `refused.jsonl` has each with "
        "its rule and reason. Rules look at words: they miss some faults and refuse some good conversations.",
        table,
    ]


def _uses(summary: Mapping[str, Any]) -> list[str]:
    names = [rule["name"] for rule in summary["rules"]]
    has_articles = summary["subject"] in ("article", "pair")
    wrong = " where the articles are, and where the model misread them" if has_articles else ""
    missing = [
        text
        for name, text in {
            **({"grounded": "answers may contain numbers and names that no article has"} if has_articles else {}),
            "duplicates": "questions may repeat each other",
            "evaluation_items": "evaluation items were not searched for, so scores on benchmarks may be too high",
            "judge": "no second call has answered the questions again",
        }.items()
        if name not in names
    ]
    lines = [
        f"For fine-tuning a model to answer questions like these. Answers may be wrong{wrong}. Do not use them as a "
        f"source of facts, or to evaluate a model trained on the {_sources(summary)}."
    ]
    return [*lines, f"Not checked: {'; '.join(missing)}."] if missing else lines
