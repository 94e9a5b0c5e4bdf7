"""One sample per answer against whole conversations: the same loss, and about as many tokens to compute."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks.answer_samples import check_agreement, run, stepper, table, ways
from benchmarks.shapes import write_shape

TOKENIZER = str(Path(__file__).parents[2] / "examples" / "tokenizer")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Conversations of 2 to 5 exchanges, with questions of 10 to 30 words and answers of 20 to 60."""
    draw = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choices(("bear", "boat", "home", "lake", "lamp", "moon"), k=draw.randint(low, high)))

    path = tmp_path_factory.mktemp("records") / "chats.jsonl"
    with path.open("w") as file:
        for _ in range(24):
            lengths = {"user": (10, 30), "assistant": (20, 60)}
            roles = ["user", "assistant"] * draw.randint(2, 5)
            messages = [{"role": role, "content": words(*lengths[role])} for role in roles]
            file.write(json.dumps({"messages": messages}) + "\n")
    return str(path)


def test_answers_cost_at_most_a_tenth_more_than_conversations_and_give_the_same_loss(
    records: str, tmp_path: Path
) -> None:
    conversations, answers = ways(records, TOKENIZER, 8, max_length=2048, budget=4096)
    model = str(write_shape("tiny", 1, tmp_path, TOKENIZER))
    run(conversations, answers, stepper(model, TOKENIZER, "full", "float32"), "cpu")
    check_agreement(conversations, answers, 1e-5)
    assert sorted(i for step in answers.steps for batch in step for i in batch) == list(range(len(answers.store)))
    assert answers.tokens > 1.8 * conversations.tokens
    assert answers.computed <= 1.1 * conversations.computed
    assert f"| answers | {len(answers.steps)} | {answers.tokens:,} | {answers.computed:,} |" in table(
        conversations, answers
    )


def test_ways_that_train_something_else_are_refused(records: str) -> None:
    conversations, answers = ways(records, TOKENIZER, 8, max_length=2048, budget=4096)
    conversations.supervised, conversations.nats = 10.0, 20.0
    answers.supervised, answers.nats = 10.0, 20.1
    with pytest.raises(SystemExit, match=r"a loss of 2\.0000000, answers 10 and 2\.0100000"):
        check_agreement(conversations, answers, 1e-5)
    answers.supervised, answers.nats = 9.0, 18.0
    with pytest.raises(SystemExit, match=r"10 supervised tokens .* answers 9"):
        check_agreement(conversations, answers, 1e-5)


def test_rows_that_are_cut_are_refused(records: str) -> None:
    with pytest.raises(SystemExit, match="rows have more than 100 tokens; raise --max-length"):
        ways(records, TOKENIZER, 8, max_length=100, budget=4096)
