"""The sentences of an evaluation's page."""

from __future__ import annotations

from pathlib import Path

from lit_sft.evaluation.evaluation_report import make_report
from lit_sft.evaluation.item_results import Results, SetResult
from lit_sft.evaluation.suite import ChoiceSet, Suite
from tests.lit_sft.evaluation.test_item_results import result, right

SUITE = Suite(choices={"s": ChoiceSet()})


def two_forms(cloze: list[int], letter: list[int]) -> SetResult:
    pairs = zip(right(cloze, "accuracy/cloze/sum").items(), right(letter, "accuracy/letter/sum").values(), strict=True)
    return result("choices", {item: {**one, **other} for (item, one), other in pairs}, group="whole")


def test_the_first_metrics_of_all_sets_come_before_the_second_of_any(tmp_path: Path) -> None:
    results = Results(["base", "tuned"])
    for model, value in (("base", 0), ("tuned", 1)):
        for name in ("one", "two"):
            results.results[model, name] = two_forms([value] * 20, [value] * 20)
    _, *sentences = make_report(SUITE, results, tmp_path, about=[]).answers
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "“tuned” is better on “one”",
        "“tuned” is better on “two”",
    ] * 2
    assert ["cloze" in sentence for sentence in sentences] == [True, True, False, False]
    assert sentences[0].startswith(
        "“tuned” is better on “one”: its accuracy (cloze, sum) is 100.0 percentage points higher, 100.0% against 0.0% ("
    )


def test_what_the_sentences_leave_out_is_listed_below(tmp_path: Path) -> None:
    results = Results(["base", "tuned"])
    for model, value in (("base", 0), ("tuned", 1)):
        for number in range(6):
            results.results[model, f"s{number}"] = result("choices", right([value] * 30), group="whole")
    answers = make_report(SUITE, results, tmp_path, about=[]).answers
    assert answers[-1] == "1 more difference is listed in the details below."


def test_a_single_model_is_shown_with_its_scores(tmp_path: Path) -> None:
    results = Results(["m"])
    results.results["m", "c"] = result("choices", right([1, 0, 0], "accuracy/cloze"), group="whole")
    (sentence,) = make_report(SUITE, results, tmp_path, about=[]).answers
    assert sentence.startswith("“m”: accuracy (cloze) on “c” 33.3% (")
