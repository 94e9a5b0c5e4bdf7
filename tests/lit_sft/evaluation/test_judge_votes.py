"""A judge's verdicts as votes."""

from __future__ import annotations

from lit_sft.evaluation.item_results import Results, SetResult
from lit_sft.evaluation.judge import Verdict
from lit_sft.evaluation.judge_votes import votes_of
from lit_sft.evaluation.scores import Scored
from lit_sft.evaluation.suite import JudgeSettings, PromptSet, Suite
from lit_sft.evaluation.win_rate import JudgedPair, Pair, SetVerdicts
from lit_sft.votes import Vote, vote_of

SUITE = Suite(prompts={"fixed": PromptSet(["Who?"])}, judge=JudgeSettings(["fixed"], "m"))
PAIR = JudgedPair(Pair("Who?", "Who?", "A tortoise.", "The"), Verdict("first"), Verdict("tie"))


def votes(**ended: float) -> list[Vote]:
    """Votes on an answer of each of two models."""
    results = Results(["base", "tuned"])
    for model, answer in (("base", "A tortoise."), ("tuned", "The")):
        metrics = {"ended": (ended[model], 1.0)} if model in ended else {}
        row = Scored("Who?", metrics, details={"question": "Who?", "answer": answer})
        results.results[model, "fixed"] = SetResult("prompts", {"Who?": row}, [], 0.0)
    return list(votes_of(SUITE, results, {("tuned", "fixed"): SetVerdicts([PAIR])}))


def test_votes_say_how_the_answers_ended() -> None:
    first, second = votes(base=1.0, tuned=0.0)
    assert (first.left.model, first.left.ending, first.right.ending) == ("base", "complete", "cut")
    assert (second.left.model, second.left.ending, second.right.ending) == ("tuned", "cut", "complete")
    assert (first.winner, second.winner) == ("left", "tie")
    assert vote_of(first.row(), "here") == first


def test_a_verdict_has_the_id_that_earlier_versions_gave_it() -> None:
    """They did not write how answers ended; given together, both files must not count a verdict twice."""
    for new, old in zip(votes(base=1.0, tuned=0.0), votes(), strict=True):
        assert (new.id, old.left.ending, old.right.ending) == (old.id, "", "")
    assert [each.id for each in votes()] == ["88dd4613e53127cf", "587479e91d27ada0"]
