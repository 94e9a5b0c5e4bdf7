"""The tables of a study's report."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from data_modules.rendering.templates import ALPACA
from lit_sft.ablation.comparison import Findings
from lit_sft.ablation.study_tables import answers, differences, headline, means
from lit_sft.reporting.page import Finding
from tests.lit_sft.ablation.test_comparison import comparison, trial


def test_the_headline_drops_losses_over_the_same_tokens_and_no_metric_of_answers() -> None:
    runs = []
    for arm in ("base", "other"):
        one = trial(arm, 0, [1.0, 2.0, 3.0])
        scores = dict.fromkeys(one.sums["answer"], (0.0, 1.0))
        more = {
            "whole_sequence": one.sums["answer"],
            **dict.fromkeys(("exact_match", "rougeL_mixed", "ended"), scores),
        }
        runs.append(replace(one, sums=one.sums | more))
    table = headline(Findings(comparison(*runs)), "answer")
    assert table is not None
    assert [row[0] for row in table.rows] == [
        "nats per answer token",
        "exact match",
        "ROUGE-L",
        "answers that end by themselves",
    ]


def test_a_metric_that_diverged_is_shown_as_not_finite() -> None:
    runs = [trial("base", 0, [1.0, 2.0, 3.0]), trial("diverged", 0, [math.nan, 2.0, 3.0])]
    found = Findings(comparison(*runs))
    table = headline(found, "answer")
    assert table is not None
    assert table.rows[0][1:] == ["1.000", "not finite"]
    assert "nan" not in str(means(found, ["answer"], "Losses", "tokens").rows)
    (row,) = differences(found, ["answer"], "Differences from").rows
    assert (row[3], row[4], row[-1]) == ("not finite", "", Finding("not finite", 0))


CHATML_PROMPT = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
ALPACA_PROMPT = f"{ALPACA.opening}### Instruction:\nWho?\n\n### Response:"


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        (CHATML_PROMPT, "Who?"),
        (ALPACA_PROMPT, "Who?"),
        ("User:\nWho?\nMe?\n\nAssistant:\n", "Who?\nMe?"),
        (f"{CHATML_PROMPT}Me.<|im_end|>\n{CHATML_PROMPT}", f"{CHATML_PROMPT}Me.<|im_end|>\n{CHATML_PROMPT}"),
        ("[INST] Who? [/INST]", "[INST] Who? [/INST]"),
    ],
)
def test_fixed_prompts_are_shown_as_the_question(prompt: str, shown: str) -> None:
    runs = [replace(trial(arm, 0, [1.0, 2.0]), samples={prompt: arm}) for arm in ("base", "other")]
    _, fixed = answers(comparison(*runs))
    assert fixed.rows == [[shown, "base", "other"]]


def test_a_constant_difference_is_not_called_too_few_values() -> None:
    runs = []
    for arm, value in (("base", 0.0), ("other", 1.0)):
        one = trial(arm, 0, [1.0, 2.0, 3.0])
        runs.append(replace(one, sums={"exact_match": dict.fromkeys(one.sums["answer"], (value, 1.0))}))
    table = headline(Findings(comparison(*runs)), "exact_match")
    assert table is not None
    assert table.rows[0][-1] == Finding("100.0% (+100.0, cannot be tested)", 0)
