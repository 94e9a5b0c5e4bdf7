"""Pairs of answers judged in both orders, and the win rate, with its dependence on position and length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from data_modules.progress import Progress
from lit_sft.evaluation.item_results import Results
from lit_sft.evaluation.judge import EndpointJudge, Judge, LikelihoodJudge, Verdict
from lit_sft.evaluation.suite import JudgeSettings
from lit_sft.files import write_lines
from lit_sft.locks import only_one
from lit_sft.models.loaded import LoadedModel
from lit_sft.printable import printable
from lit_sft.reporting.statistics import Estimate, estimate
from lit_sft.runs.opening import open_model

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models' answers to one request.

    Attributes:
        item: Name of the item.
        question: The request.
        base: The baseline's answer.
        other: The other model's.
    """

    item: str
    question: str
    base: str
    other: str


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A pair with its verdicts: with the baseline's answer first, and with it second."""

    pair: Pair
    base_first: Verdict
    base_second: Verdict

    @property
    def score(self) -> float | None:
        """1 if the other model wins in both orders, 0 if it loses in both; None without both verdicts."""
        values = [
            {"first": lose, "second": win, "tie": 0.5}[verdict.winner]
            for verdict, lose, win in ((self.base_first, 0.0, 1.0), (self.base_second, 1.0, 0.0))
            if verdict.winner is not None
        ]
        return sum(values) / 2 if len(values) == 2 else None

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "item": self.pair.item,
            "score": self.score,
            "base_first": self.base_first.winner,
            "base_second": self.base_second.winner,
            "reason": self.base_first.reason or self.base_second.reason,
        }


@dataclass
class SetVerdicts:
    """A judge's verdicts on two models.

    Attributes:
        judged: Every pair.
        price: Price of an input and of an output token, in the currency of the settings.
    """

    judged: list[JudgedPair]
    price: tuple[float, float] = (0.0, 0.0)
    verdicts: list[Verdict] = field(init=False)

    def __post_init__(self) -> None:
        self.verdicts = [verdict for each in self.judged for verdict in (each.base_first, each.base_second)]

    @property
    def scores(self) -> dict[str, float]:
        """Scores by item, of pairs with verdicts in both orders."""
        return {each.pair.item: each.score for each in self.judged if each.score is not None}

    @property
    def lengths(self) -> list[int]:
        """Characters by which the other model's answer is longer, in the order of `scores`."""
        return [len(each.pair.other) - len(each.pair.base) for each in self.judged if each.score is not None]

    @property
    def first_share(self) -> float:
        """Share of verdicts for the answer shown first, ties excluded; 0.5 if all are ties."""
        winners = [verdict.winner for verdict in self.verdicts if verdict.winner in ("first", "second")]
        return winners.count("first") / len(winners) if winners else 0.5

    @property
    def agreement(self) -> float:
        """Share of pairs whose verdicts agree, of those with both."""
        both = [each for each in self.judged if each.score is not None]
        alike = (("first", "second"), ("second", "first"), ("tie", "tie"))
        return sum((each.base_first.winner, each.base_second.winner) in alike for each in both) / max(1, len(both))

    @property
    def cost(self) -> float:
        """Cost of all replies, cached ones included. If both answers are equal, both orders are one request."""
        paid = [
            v for e in self.judged for v in (e.base_first, e.base_second)[: 1 if e.pair.base == e.pair.other else 2]
        ]
        return sum(v.tokens[0] * self.price[0] + v.tokens[1] * self.price[1] for v in paid)

    def count(self, *, unparsed: bool) -> int:
        """Count missing verdicts: of replies without one (`unparsed`), or of failed requests."""
        return sum(v.winner is None and v.is_unparsed == unparsed for v in self.verdicts)


AllVerdicts = dict[tuple[str, str], SetVerdicts]
"""A judge's verdicts by model and set."""


def judge_pairs(
    judge: Judge,
    pairs: Sequence[Pair],
    concurrency: int,
    tick: Callable[[], object],
    give_up: Callable[[], object] = lambda: None,
) -> list[JudgedPair]:
    """Have every pair judged in both orders, several at once.

    Args:
        judge: Decides which answer is better.
        pairs: To judge.
        concurrency: Maximum requests at once.
        tick: Called after each verdict.
        give_up: Called on Ctrl-C and errors, to cancel pending requests.
    """
    verdicts: dict[tuple[int, bool], Verdict] = {}
    with ThreadPoolExecutor(concurrency) as pool:
        asked = {}
        for index, pair in enumerate(pairs):
            asked[pool.submit(judge, pair.question, pair.base, pair.other)] = index, True
            asked[pool.submit(judge, pair.question, pair.other, pair.base)] = index, False
        try:
            for done in as_completed(asked):
                verdicts[asked[done]] = done.result()
                tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            give_up()
            raise
    return [JudgedPair(pair, verdicts[index, True], verdicts[index, False]) for index, pair in enumerate(pairs)]


def judge_models(
    settings: JudgeSettings,
    results: Results,
    folder: Path,
    log: Callable[[str], None],
    load: Callable[[str, str], LoadedModel] = open_model,
) -> AllVerdicts:
    """Have every model's answers judged against the baseline's.

    Args:
        settings: The judge.
        results: With the answers.
        folder: Replies are cached in judge_replies.jsonl, verdicts written to judge_verdicts.jsonl.
        log: Prints a line.
        load: Loads a local judge, from its name and folder.

    Returns:
        By model and set. A set without verdicts, and an endpoint that stopped answering, are added to the failures
        of `results`.

    Raises:
        UserError: If the judge cannot be reached, or another process is judging into this folder.
    """
    with only_one(folder / "judge.lock", partial(_judged_elsewhere, folder)):
        if settings.endpoint is None:
            found = _judge_sets(LikelihoodJudge(load("judge", settings.model)), settings, results, log)
        else:
            judge = EndpointJudge(settings, folder / "judge_replies.jsonl")
            try:
                found = _judge_sets(judge, settings, results, log, judge.close)
                if judge.stopped:
                    results.failures["judge"] = judge.stopped
                    log(f"judge: {judge.stopped}")
            finally:
                judge.close()
        _write_verdicts(folder / "judge_verdicts.jsonl", found)
    return found


def _judged_elsewhere(folder: Path, owner: str) -> str:
    return f"{folder}: {owner} is judging here; wait for it to finish, or choose another `--output`."


def _judge_sets(
    judge: Judge,
    settings: JudgeSettings,
    results: Results,
    log: Callable[[str], None],
    give_up: Callable[[], object] = lambda: None,
) -> AllVerdicts:
    found: AllVerdicts = {}
    for model in results.models[1:]:
        for name in settings.sets:
            pairs = _pairs(results, model, name)
            if not pairs:
                continue
            what = printable(f"judging {model}, {name}")
            with Progress(what, "verdicts", 2 * len(pairs)) as progress:
                judged = judge_pairs(judge, pairs, settings.concurrency, progress.update, give_up)
            found[model, name] = SetVerdicts(
                judged, (settings.price_read / _MILLION, settings.price_written / _MILLION)
            )
            if not found[model, name].scores:
                results.failures[what] = f"no pair has both verdicts ({judged[0].row()['reason']})"
            log(f"{what}: {len(found[model, name].scores):,} of {len(pairs):,} pairs judged in both orders")
    return found


def _write_verdicts(path: Path, judgings: AllVerdicts) -> None:
    write_lines(
        path,
        (
            {"model": model, "set": name, **each.row()}
            for (model, name), judging in judgings.items()
            for each in judging.judged
        ),
    )


def rate(judging: SetVerdicts) -> Estimate | None:
    """Win rate over the pairs with both verdicts, a tie counting half; None if there are none."""
    scores = np.array(list(judging.scores.values()))
    return estimate(scores[None], np.ones(len(scores))) if len(scores) else None


def length_controlled_rate(judging: SetVerdicts) -> float | None:
    """Estimate the win rate for answers of equal length.

    A logistic regression of the score on the difference in length (tanh of it over its standard deviation),
    evaluated at no difference. Source: Y. Dubois et al., "Length-Controlled AlpacaEval" (2024), without its terms for
    models and instructions, which need many models.

    Returns:
        None if there is no verdict.
    """
    scores, lengths = np.array(list(judging.scores.values())), np.array(judging.lengths, dtype=np.float64)
    if not len(scores):
        return None
    spread = lengths.std()
    x = np.tanh(lengths / spread) if spread else np.zeros_like(lengths)

    def cost(weights: np.ndarray) -> float:
        logits = weights[0] + weights[1] * x
        # a small ridge penalty keeps weights finite under perfect separation
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
