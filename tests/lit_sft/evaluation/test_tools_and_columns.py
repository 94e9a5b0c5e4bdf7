"""Sets whose records have tools, thinking, or columns with other names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from lit_sft.evaluation.answers import score_answers
from lit_sft.evaluation.evaluate import _described
from lit_sft.evaluation.scores import Scored, Skipped
from lit_sft.evaluation.suite import AnswerSet, ConversationSet
from lit_sft.evaluation.suite_file import read_suite
from lit_sft.evaluation.text_perplexity import score_conversations
from lit_sft.models.generation import Generated
from lit_sft.models.loaded import LoadedModel
from tests.lit_sft.evaluation.conftest import MakeModel

Write = Callable[..., str]

CALL = {"function": {"name": "now", "arguments": {}}}
CALLING = {"role": "assistant", "content": "Wait.", "reasoning_content": "Hm.", "tool_calls": [CALL]}
USE = [
    {"role": "user", "content": "Time?"},
    CALLING,
    {"role": "tool", "content": "12:00"},
    {"role": "assistant", "content": "Noon.", "thinking": "So."},
]
WRITTEN = 'Wait.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


@pytest.fixture
def score(make_model: MakeModel, write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scored]:
    """Score a fixed answer to the last turn of a conversation."""

    def _score(messages: list[dict[str, Any]], answer: str) -> Scored:
        model = make_model(template="chatml")
        monkeypatch.setattr(LoadedModel, "answer", lambda *_: [Generated(answer, 5, True)])
        data = write("rows.jsonl", [{"messages": messages}])
        (scored,) = score_answers(model, AnswerSet(data), Skipped())
        return scored

    return _score


@pytest.mark.parametrize(
    ("messages", "reference"), [(USE, "Noon."), (USE[:2], WRITTEN), ([USE[0], {**CALLING, "content": ""}], WRITTEN[6:])]
)
def test_answers_are_compared_with_all_that_is_emitted_but_thinking(
    score: Callable[..., Scored], messages: list[dict[str, Any]], reference: str
) -> None:
    for answer in (reference, f"<think>\nOther thoughts.\n</think>\n\n{reference}"):
        scored = score(messages, answer)
        assert scored.details["reference"] == scored.details["answer"] == reference
        assert scored.metrics["exact_match"] == (1, 1)
    assert score(messages, "Midnight.").metrics["exact_match"] == (0, 1)


def test_question_shows_calls_and_results(score: Callable[..., Scored]) -> None:
    assert score(USE, "Noon.").details["question"] == (
        'user: Time?\n\nassistant: Wait.\n\n{"name": "now", "arguments": {}}\n\ntool: 12:00'
    )


def test_conversations_with_tools_are_scored_by_segment(make_model: MakeModel, write: Write) -> None:
    data = write("rows.jsonl", [{"messages": USE}])
    (scored,) = score_conversations(make_model(template="chatml"), ConversationSet(data), Skipped())
    sizes = {name: scored.metrics[f"nll/{name}"][1] for name in ("thinking", "tool_call", "tool_result", "answer")}
    think = len("<think>\nHm.\n</think>\n\n<think>\nSo.\n</think>\n\n")
    assert sizes == {
        "thinking": think, "tool_call": len(WRITTEN) - 5 + 1, "tool_result": 5, "answer": 10 + 1
    }  # fmt: skip
    assert scored.metrics["nll/output_only"][1] == len("<think>\nSo.\n</think>\n\nNoon.") + 1


def test_sets_read_columns_with_other_names(make_model: MakeModel, write: Write) -> None:
    data = write("rows.jsonl", [{"question": "Hi", "answer": "Hello"}])
    suite = f"conversations: {{a: {{data: {data}, columns: {{instruction: question, output: answer}}}}}}"
    ((_, _, settings),) = read_suite(write("mine.yaml", suite)).sets()
    assert isinstance(settings, ConversationSet)
    (scored,) = score_conversations(make_model(), settings, Skipped())
    (plain,) = score_conversations(
        make_model(), ConversationSet(write("own.jsonl", [{"instruction": "Hi", "output": "Hello"}])), Skipped()
    )
    assert scored.metrics == plain.metrics
    missing = replace(settings, columns={**(settings.columns or {}), "system": "sys"})
    with pytest.raises(ValueError, match=r"`columns` reads system from 'sys', which no record has"):
        list(score_conversations(make_model(), missing, Skipped()))


def test_impossible_columns_are_refused_with_the_place_of_the_set(write: Write) -> None:
    with pytest.raises(ValueError, match=r"answers\.a\.columns: no format has the field 'instrution'"):
        read_suite(write("mine.yaml", "answers: {a: {data: x.json, columns: {instrution: q}}}"))
    with pytest.raises(ValueError, match=r"answers\.a\.columns 3: expected names and values or null"):
        read_suite(write("mine.yaml", "answers: {a: {data: x.json, columns: 3}}"))


def test_columns_that_are_not_given_leave_earlier_scores_valid() -> None:
    settings = AnswerSet("x.json")
    assert "columns" not in _described(settings)
    assert _described(settings) == {name: value for name, value in asdict(settings).items() if name != "columns"}
    assert _described(replace(settings, columns={"output": "a"}))["columns"] == {"output": "a"}
