"""The prompt for the next answer of a conversation."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.rendering.templates import TEMPLATES
from lit_sft.models.fitted_prompt import about_left_out, fitted_prompt, turns_of, whole_prompt

SYSTEM = Message(Role.SYSTEM, "Be brief.")
SAID = [Message(Role.USER, "a" * 10), Message(Role.ASSISTANT, "b" * 10)]
NEXT = Message(Role.USER, "c" * 10)


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer, TEMPLATES["chatml"], max_length=8)


def test_a_conversation_that_fits_is_rendered_whole(encoder: Encoder) -> None:
    turns = [SYSTEM, *SAID, NEXT]
    prompt = fitted_prompt(encoder, turns, context=512, max_new_tokens=16)
    assert list(prompt.tokens.input_ids) == list(whole_prompt(encoder, turns).input_ids)
    assert (prompt.turns, prompt.num_left_out) == (tuple(turns), 0)


def test_the_oldest_exchanges_are_left_out_and_the_system_message_stays(encoder: Encoder) -> None:
    short = whole_prompt(encoder, [SYSTEM, *SAID, NEXT])
    prompt = fitted_prompt(encoder, [SYSTEM, *SAID * 4, NEXT], context=len(short) + 16, max_new_tokens=16)
    assert (prompt.turns, prompt.num_left_out) == ((SYSTEM, *SAID, NEXT), 3)
    assert list(prompt.tokens.input_ids) == list(short.input_ids)


def test_a_message_that_leaves_too_little_room_gets_a_shorter_answer(encoder: Encoder) -> None:
    alone = whole_prompt(encoder, [NEXT])
    prompt = fitted_prompt(encoder, [*SAID, NEXT], context=len(alone) + 1, max_new_tokens=16)
    assert (len(prompt.tokens), prompt.turns, prompt.num_left_out) == (len(alone), (NEXT,), 1)


def test_a_message_that_leaves_no_room_is_refused(encoder: Encoder) -> None:
    alone = whole_prompt(encoder, [NEXT])
    with pytest.raises(UserError, match=rf"the message: {len(alone)} tokens .* expected fewer than {len(alone)}, "):
        fitted_prompt(encoder, [*SAID, NEXT], context=len(alone), max_new_tokens=16)


def test_what_is_far_too_long_is_not_encoded(encoder: Encoder, encoded: list[int]) -> None:
    long = Message(Role.USER, "x" * 100_000)
    prompt = fitted_prompt(encoder, [SYSTEM, long, SAID[1], NEXT], context=512, max_new_tokens=16)
    assert (prompt.turns, prompt.num_left_out) == ((SYSTEM, NEXT), 1)
    with pytest.raises(UserError, match=r"the message: at least 7,697 tokens .* expected fewer than 512, "):
        fitted_prompt(encoder, [*SAID, long], context=512, max_new_tokens=16)
    assert 0 < max(encoded) < 100


@pytest.mark.parametrize("empty", ["", " \n", "<think>\nHm.\n</think>", "<think>\nHm.\n</think>\n\n \n"])
def test_a_message_with_an_empty_answer_is_joined_with_the_next(empty: str) -> None:
    said = [("a", empty), ("b", "Yes."), ("c", empty), ("d", empty)]
    turns = [(turn.role.value, turn.content) for turn in turns_of(" Be brief.\n", said, "e")]
    assert turns == [("system", "Be brief."), ("user", "a\n\nb"), ("assistant", "Yes."), ("user", "c\n\nd\n\ne")]
    assert [turn.role.value for turn in turns_of(" ", [("a", "<think>\nHm.\n</think>\n\nYes.")], "b")] == [
        "user", "assistant", "user",
    ]  # fmt: skip


def test_exchanges_that_were_left_out_are_counted() -> None:
    assert [about_left_out(number) for number in (0, 1, 3)] == [
        "",
        "the oldest exchange did not fit into the context",
        "the oldest 3 exchanges did not fit into the context",
    ]
