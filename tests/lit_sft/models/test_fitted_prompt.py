"""The prompt for the next answer of a conversation."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.rendering.templates import TEMPLATES
from lit_sft.models.fitted_prompt import fitted_prompt, whole_prompt

SYSTEM = Message(Role.SYSTEM, "Be brief.")
SAID = [Message(Role.USER, "a" * 10), Message(Role.ASSISTANT, "b" * 10)]
NEXT = Message(Role.USER, "c" * 10)


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer, TEMPLATES["chatml"], max_length=8)


def test_a_conversation_that_fits_is_rendered_whole(encoder: Encoder) -> None:
    turns = [SYSTEM, *SAID, NEXT]
    prompt, num_left_out = fitted_prompt(encoder, turns, context=512, max_new_tokens=16)
    assert list(prompt.input_ids) == list(whole_prompt(encoder, turns).input_ids)
    assert num_left_out == 0


def test_the_oldest_exchanges_are_left_out_and_the_system_message_stays(encoder: Encoder) -> None:
    short = whole_prompt(encoder, [SYSTEM, *SAID, NEXT])
    prompt, num_left_out = fitted_prompt(encoder, [SYSTEM, *SAID * 4, NEXT], context=len(short) + 16, max_new_tokens=16)
    assert num_left_out == 3
    assert list(prompt.input_ids) == list(short.input_ids)


def test_a_message_that_leaves_too_little_room_gets_a_shorter_answer(encoder: Encoder) -> None:
    alone = whole_prompt(encoder, [NEXT])
    prompt, num_left_out = fitted_prompt(encoder, [*SAID, NEXT], context=len(alone) + 1, max_new_tokens=16)
    assert (len(prompt), num_left_out) == (len(alone), 1)


def test_a_message_that_leaves_no_room_is_refused(encoder: Encoder) -> None:
    alone = whole_prompt(encoder, [NEXT])
    with pytest.raises(UserError, match=rf"the message: {len(alone)} tokens .* expected fewer than {len(alone)}, "):
        fitted_prompt(encoder, [*SAID, NEXT], context=len(alone), max_new_tokens=16)
