"""A judge's verdicts as votes, which `ratings` reads next to the votes of people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

from lit_sft.evaluation.item_results import Results
from lit_sft.evaluation.judge import Verdict, Winner
from lit_sft.evaluation.suite import AnswerSet, PromptSet, Suite
from lit_sft.evaluation.win_rate import AllVerdicts, JudgedPair
from lit_sft.files import digest
from lit_sft.votes import Ending, Message, Side, Vote, Voter, now
from lit_sft.votes import Winner as Preferred

_WINNERS: dict[Winner, Preferred] = {"first": "left", "second": "right", "tie": "tie"}

_SAMPLING = ("max_new_tokens", "temperature", "top_p")


def votes_of(suite: Suite, results: Results, judgings: AllVerdicts) -> Iterator[Vote]:
    """Two votes for each judged pair, one for each order; none where there is no verdict.

    Args:
        suite: The suite, with a judge.
        results: The scored models.
        judgings: The judge's verdicts, by model and set.
    """
    assert suite.judge is not None
    what = "" if suite.judge.endpoint is not None else "likelihood under "
    voter, base, time = Voter("judge", f"{what}{suite.judge.model}"), results.models[0], now()
    for (model, name), judging in judgings.items():
        settings = suite.answers[name] if name in suite.answers else suite.prompts[name]
        for each in judging.judged:
            before, after = (_side(results, who, name, each.pair.item, settings) for who in (base, model))
            for verdict, left, right in ((each.base_first, before, after), (each.base_second, after, before)):
                if verdict.winner is not None:
                    yield _vote(voter, time, each, verdict, left, right)


def _vote(voter: Voter, time: str, each: JudgedPair, verdict: Verdict, left: Side, right: Side) -> Vote:
    assert verdict.winner is not None
    prompt = Message("user", each.pair.question)
    return Vote(
        # votes of earlier versions had no ending: the same verdict keeps its id, so that it counts once
        id=digest([asdict(voter), asdict(prompt), *(replace(side, ending="").row() for side in (left, right))]),
        time=time,
        voter=voter,
        winner=_WINNERS[verdict.winner],
        prompt=(prompt,),
        left=left,
        right=right,
        is_blind=True,
    )


def _side(results: Results, model: str, name: str, item: str, settings: AnswerSet | PromptSet) -> Side:
    row = results.results[model, name].rows[item]
    sampling = {field: getattr(settings, field) for field in _SAMPLING if hasattr(settings, field)}
    ended = row.metrics.get("ended")
    ending: Ending = "" if ended is None else "complete" if ended[0] else "cut"
    return Side(model, row.details["answer"], results.digests.get(model, ""), sampling, settings.seed, ending)
