"""The tables of a study's report."""

from __future__ import annotations

from dataclasses import replace

from lit_sft.ablation.comparison import Findings
from lit_sft.ablation.study_tables import headline
from tests.lit_sft.ablation.test_comparison import comparison, trial


def test_the_headline_drops_losses_over_the_same_tokens_and_no_metric_of_answers() -> None:
    runs = []
    for arm in ("base", "other"):
        one = trial(arm, 0, [1.0, 2.0, 3.0])
        answers = dict.fromkeys(one.sums["answer"], (0.0, 1.0))
        more = {
            "whole_sequence": one.sums["answer"],
            **dict.fromkeys(("exact_match", "rougeL_mixed", "ended"), answers),
        }
        runs.append(replace(one, sums=one.sums | more))
    table = headline(Findings(comparison(*runs)), "answer")
    assert table is not None
    assert [row[0] for row in table.rows] == [
        "nats per token, answer tokens",
        "exact match",
        "ROUGE-L",
        "answers that end by themselves",
    ]
