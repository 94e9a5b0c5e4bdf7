from __future__ import annotations

import pytest

from data_modules.records import conversation
from data_modules.records.conversation import Conversation, Message, Role, expand_answers

U, A, S = Role.USER, Role.ASSISTANT, Role.SYSTEM


def talk(*roles: Role, origin: str = "x.jsonl:3") -> Conversation:
    return Conversation(tuple(Message(role, f"t{i}") for i, role in enumerate(roles)), origin)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ((U, U), r"x.jsonl:3: turn 2 is 'user' after 'user'; expected 'assistant'"),
        ((A, U), r"x.jsonl:3: turn 1 is 'assistant' at the start; expected 'user'"),
        ((S, A), r"x.jsonl:3: turn 2 is 'assistant' at the start; expected 'user'"),
        ((U, A, S, U), r"x.jsonl:3: turn 3 is 'system' after 'assistant'"),
        ((S,), r"x.jsonl:3: only a system turn"),
        ((), r"x.jsonl:3: the conversation has no turns"),
        ((Role.TEXT, Role.TEXT), r"x.jsonl:3: 2 turns; a text document has exactly one"),
    ],
)
def test_conversation_names_the_turn_that_is_out_of_order(roles: tuple[Role, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        talk(*roles)


@pytest.mark.parametrize("content", ["", "  \n", "a\ud800b"])
def test_conversation_refuses_empty_and_broken_content(content: str) -> None:
    with pytest.raises(ValueError, match=r"x.jsonl:3: turn 2 \(assistant\)"):
        Conversation((Message(U, "q"), Message(A, content)), "x.jsonl:3")


def test_conversation_has_a_limited_amount_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "MAX_TEXT_BYTES", 10)
    Conversation((Message(U, "日本", context="x"), Message(A, "abc")), "x.jsonl:3")
    with pytest.raises(ValueError, match=r"x\.jsonl:3: 11 bytes of text; expected at most 10 per record\. Split"):
        Conversation((Message(U, "日本", context="x"), Message(A, "abcd")), "x.jsonl:3")


def test_prompt_is_everything_before_the_last_answer() -> None:
    assert talk(S, U, A, U, A).prompt().turns == talk(S, U, A, U).turns
    assert talk(U).prompt() == talk(U)


def test_expand_answers_makes_one_sample_of_each_answer_with_its_history() -> None:
    samples = expand_answers(talk(S, U, A, U, A))
    assert [len(sample.turns) for sample in samples] == [3, 5]
    assert all(sample.turns[0].role is S for sample in samples)
