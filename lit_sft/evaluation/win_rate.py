"""Win rates: how often a judge prefers a model's answers to the baseline's, and how much of that is their length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from tqdm import tqdm

from lit_sft.evaluation.judge import EndpointJudge, Judge, Judging, LikelihoodJudge, Pair, judge_pairs
from lit_sft.evaluation.results import Results
from lit_sft.evaluation.subject import Subject, load_subject
from lit_sft.evaluation.suite import JudgeSettings
from lit_sft.reporting.statistics import Estimate, estimate

_MILLION = 1_000_000


def judge_models(
    settings: JudgeSettings,
    results: Results,
    folder: Path,
    say: Callable[[str], None],
    load: Callable[[str, str], Subject] = load_subject,
) -> dict[tuple[str, str], Judging]:
    """Have every model's answers judged against the baseline's.

    Args:
        settings: Who judges.
        results: With the answers.
        folder: Replies are kept in its judge_replies.jsonl, verdicts written to judge_verdicts.jsonl.
        say: Told of what is done.
        load: Loads a local judge, from its name and folder.

    Returns:
        By model and set. Where there is no verdict at all, that is among the failures of `results`.

    Raises:
        ValueError: If the judge cannot be asked.
    """
    judge: Judge
    if settings.endpoint is not None:
        judge = EndpointJudge(settings, folder / "judge_replies.jsonl")
    else:
        judge = LikelihoodJudge(load("judge", settings.model))
    found: dict[tuple[str, str], Judging] = {}
    for model in results.models[1:]:
        for name in settings.sets:
            pairs = _pairs(results, model, name)
            if not pairs:
                continue
            what = f"judging {model}, {name}"
            with tqdm(total=2 * len(pairs), desc=what, unit=" verdicts", disable=None, leave=False) as bar:
                judged = judge_pairs(judge, pairs, settings.concurrency, bar.update)
            found[model, name] = Judging(judged, (settings.price_read / _MILLION, settings.price_written / _MILLION))
            if not found[model, name].scores:
                results.failures[what] = f"no pair has both verdicts ({judged[0].row()['reason']})"
            say(f"{what}: {len(found[model, name].scores):,} of {len(pairs):,} pairs judged in both orders")
    with (folder / "judge_verdicts.jsonl").open("w", encoding="utf-8") as stream:
        for (model, name), judging in found.items():
            for each in judging.judged:
                stream.write(json.dumps({"model": model, "set": name, **each.row()}, ensure_ascii=False) + "\n")
    return found


def rate(judging: Judging) -> Estimate | None:
    """The win rate over the pairs with both verdicts, a tie counting half; None where there are none."""
    scores = np.array(list(judging.scores.values()))
    return estimate(scores[None], np.ones(len(scores))) if len(scores) else None


def length_controlled_rate(judging: Judging) -> float | None:
    """What the win rate would be if the answers were of like length.

    A logistic model of the score on the difference in length (tanh of it over its standard deviation), read at no
    difference. Source: Y. Dubois et al., "Length-Controlled AlpacaEval" (2024), without its terms for models and
    instructions, which need many models.

    Returns:
        None where there is no verdict.
    """
    scores, lengths = np.array(list(judging.scores.values())), np.array(judging.lengths, dtype=np.float64)
    if not len(scores):
        return None
    spread = lengths.std()
    x = np.tanh(lengths / spread) if spread else np.zeros_like(lengths)

    def cost(weights: np.ndarray) -> float:
        logits = weights[0] + weights[1] * x
        # a little ridge keeps what is perfectly separated finite
        return float(np.mean(np.logaddexp(0, logits) - scores * logits) + 1e-3 * weights @ weights)

    return float(expit(minimize(cost, np.zeros(2)).x[0]))


def _pairs(results: Results, model: str, name: str) -> list[Pair]:
    ours, base = (results.results.get((each, name)) for each in (model, results.models[0]))
    if ours is None or base is None:
        return []
    return [
        Pair(item, row.details["question"], base.rows[item].details["answer"], row.details["answer"])
        for item, row in ours.rows.items()
        if item in base.rows
    ]
