from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.cache import data_identity
from data_modules.encoding.encoder import Encoder
from data_modules.records.conversation import Message, Role
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from data_modules.records.turn_order import TurnRules, arranged
from data_modules.rendering.templates import resolve_template

S, U, A, TEXT = Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TEXT
MERGE, DROP, BOTH = TurnRules("merge"), TurnRules("error", "drop"), TurnRules("merge", "drop")


def turns(*roles: Role) -> list[Message]:
    return [Message(role, f"t{index}") for index, role in enumerate(roles)]


@pytest.mark.parametrize(
    ("rules", "roles", "expected", "done"),
    [
        (TurnRules(), (A, U, U, A), "assistant t0|user t1|user t2|assistant t3", {}),
        (MERGE, (U, A, U, A), "user t0|assistant t1|user t2|assistant t3", {}),
        (MERGE, (S, S, U, U, U, A, A), "system t0\n\nt1|user t2\n\nt3\n\nt4|assistant t5\n\nt6", {"joined": 4}),
        (MERGE, (TEXT, TEXT), "text t0|text t1", {}),
        (DROP, (A, U, A), "user t1|assistant t2", {"dropped": 1}),
        (DROP, (S, A, U, A), "system t0|user t2|assistant t3", {"dropped": 1}),
        (DROP, (A, A, U, A), "assistant t1|user t2|assistant t3", {"dropped": 1}),
        (BOTH, (A, A, U, A), "user t2|assistant t3", {"joined": 1, "dropped": 1}),
        (DROP, (U, A), "user t0|assistant t1", {}),
        (DROP, (S,), "system t0", {}),
    ],
)
def test_turns_are_put_in_order_as_far_as_the_rules_allow(
    rules: TurnRules, roles: tuple[Role, ...], expected: str, done: dict[str, int]
) -> None:
    arrangement, counts = arranged(turns(*roles), rules)
    assert "|".join(f"{turn.role} {turn.content}" for turn in arrangement) == expected
    assert sum(counts.values()) == sum(done.values())
    assert {word: count for word in done for name, count in counts.items() if word in name} == done


def test_empty_system_message_is_always_dropped() -> None:
    arrangement, counts = arranged([Message(S, " \n"), *turns(U, A)], TurnRules())
    assert [turn.role for turn in arrangement] == [U, A]
    assert dict(counts) == {"empty system messages dropped": 1}


def test_joined_messages_keep_their_contexts_and_weights() -> None:
    given = [
        Message(U, "a", context="x"),
        Message(U, "b"),
        Message(A, "c", weight=0.0),
        Message(A, "d", weight=0.0),
    ]
    arrangement, _ = arranged(given, MERGE)
    assert arrangement == (Message(U, "a\n\nb", context="x"), Message(A, "c\n\nd", weight=0.0))


def test_messages_with_different_weights_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"turn 3 \(assistant\) cannot be joined .* their weights differ"):
        arranged([Message(U, "a"), Message(A, "b"), Message(A, "c", weight=0.0)], MERGE)


def test_rules_apply_to_files_and_are_counted(write: Callable[..., str]) -> None:
    def said(*turns: tuple[str, str]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    rows = [said(("assistant", "Welcome"), ("user", "a"), ("user", "b"), ("assistant", "c"))]
    sources = Sources({"train": [write("rows.jsonl", rows)]}, turn_rules=BOTH)
    counts = RecordCounts()
    (conversation,) = read_conversations("train", sources, counts)
    assert [(turn.role, turn.content) for turn in conversation.turns] == [(U, "a\n\nb"), (A, "c")]
    assert dict(counts.changed_turns) == {"messages joined with the one before": 1, "answers at the start dropped": 1}


@pytest.mark.parametrize("rules", [TurnRules(consecutive="join"), TurnRules(first_answer="keep")])  # type: ignore[arg-type]
def test_unknown_rules_are_refused(rules: TurnRules) -> None:
    with pytest.raises(ValueError, match=r"--data\.(consecutive join|first_answer keep): expected one of error, "):
        Sources({"train": ["rows.jsonl"]}, turn_rules=rules)


def test_rules_are_part_of_the_identity_unless_they_are_the_default(
    write: Callable[..., str], tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = Encoder(tokenizer, resolve_template("chatml", tokenizer), 200)
    path = write("rows.jsonl", [{"prompt": "a", "completion": "b"}])
    default, merging = (
        data_identity(Sources({"train": [path]}, turn_rules=rules), encoder) for rules in (TurnRules(), BOTH)
    )
    assert {**default, "--data.consecutive": "merge", "--data.first_answer": "drop"} == merging
