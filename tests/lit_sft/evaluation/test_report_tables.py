"""The tables of an evaluation's report."""

from __future__ import annotations

from lit_sft.evaluation.judge import Verdict
from lit_sft.evaluation.report_tables import win_rates
from lit_sft.evaluation.win_rate import JudgedPair, Pair, SetVerdicts

PAIR = Pair("i", "asked", "one", "other")


def cells(*judged: JudgedPair) -> list[str]:
    table = win_rates({("tuned", "s"): SetVerdicts(list(judged))})
    return [str(cell) for cell in table.rows[0]]


def test_what_a_judge_without_verdicts_prefers_is_left_empty() -> None:
    _, pairs, *preferences, _, failed, _ = cells(JudgedPair(PAIR, Verdict(None), Verdict(None)))
    assert pairs == "0 of 1"
    assert preferences == ["", "", "0", "", ""]
    assert failed == "2"
    _, _, _, _, ties, agree, first, *_ = cells(JudgedPair(PAIR, Verdict("tie"), Verdict("tie")))
    assert (ties, agree, first) == ("1", "100.0%", "50.0%")
