"""Conversations of several turns: prompts of the template, what is left out, what is saved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.chat.session import ChatSession
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.loaded import LoadedModel
from tests.conftest import IM_END

SETTINGS = GenerationSettings(max_new_tokens=8)


def as_trained(model: LoadedModel, *turns: tuple[Role, str]) -> list[int]:
    """The prompt as the encoder writes it for training."""
    conversation = Conversation(tuple(Message(role, text) for role, text in turns), "test")
    (example,) = replace(model.encoder, max_length=10**6).encode(conversation)
    return list(map(int, example.prompt_ids()))


def test_every_turn_is_part_of_the_next_prompt(model: LoadedModel) -> None:
    session = ChatSession(model, SETTINGS, system="Be brief.")
    first = session.ask("Hello")
    second = session.ask("你好")
    assert first.answer.num_tokens == 8
    turns = [
        (Role.SYSTEM, "Be brief."), (Role.USER, "Hello"), (Role.ASSISTANT, first.answer.text), (Role.USER, "你好"),
    ]  # fmt: skip
    assert second.prompt.prompt_ids() == as_trained(model, *turns)
    assert second.num_left_out == 0
    session.reset()
    session.system = ""
    assert session.ask("Hello").prompt.prompt_ids() == as_trained(model, (Role.USER, "Hello"))


def test_answers_depend_only_on_seed_and_conversation(model: LoadedModel) -> None:
    settings = replace(SETTINGS, temperature=1.0)
    answers = [ChatSession(model, settings, seed=seed).ask("Hello").answer.text for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_pieces_are_the_answer(model: LoadedModel) -> None:
    pieces: list[str] = []
    exchange = ChatSession(model, SETTINGS).ask("Hello", lambda piece: pieces.append(piece.text))
    assert "".join(pieces) == exchange.answer.text
    assert len(pieces) > 1


def test_stopped_answer_stays_in_the_conversation_as_far_as_it_got(model: LoadedModel) -> None:
    session, asked = ChatSession(model, SETTINGS), iter(range(100))
    exchange = session.ask("Hello", None, lambda: next(asked) >= 3)
    assert exchange.answer.is_cancelled
    assert exchange.answer.num_tokens == 3
    following = session.ask("And?").prompt.prompt_ids()
    answer = exchange.answer.text
    assert following == as_trained(model, (Role.USER, "Hello"), (Role.ASSISTANT, answer), (Role.USER, "And?"))


def test_a_message_whose_answer_is_empty_is_joined_with_the_next_one(model: LoadedModel) -> None:
    session = ChatSession(model, SETTINGS)
    session.ask("My name is Ann.", None, lambda: True)
    exchange = session.ask("What is my name?")
    joined = "My name is Ann.\n\nWhat is my name?"
    assert exchange.prompt.prompt_ids() == as_trained(model, (Role.USER, joined))
    assert exchange.given == (Message(Role.USER, joined),)
    assert exchange.message == "What is my name?"


def test_oldest_exchanges_are_left_out_when_the_context_is_full(model: LoadedModel) -> None:
    session = ChatSession(model, replace(SETTINGS, max_new_tokens=30), system="S")
    exchanges = [session.ask(f"{number}" * 60) for number in range(5)]
    assert exchanges[1].num_left_out == 0
    last = exchanges[-1]
    assert 0 < last.num_left_out < 4
    kept = exchanges[last.num_left_out : -1]
    turns = [(Role.SYSTEM, "S")]
    for exchange in kept:
        turns += [(Role.USER, exchange.message), (Role.ASSISTANT, exchange.answer.text)]
    assert last.prompt.prompt_ids() == as_trained(model, *turns, (Role.USER, last.message))
    assert len(last.prompt) <= 512 - 30


def test_a_long_message_leaves_a_shorter_answer_and_one_that_is_too_long_is_refused(model: LoadedModel) -> None:
    session = ChatSession(model, replace(SETTINGS, max_new_tokens=200))
    empty = len(as_trained(model, (Role.USER, "x"))) - 1
    assert session.ask("x" * (505 - empty)).answer.num_tokens == 7
    with pytest.raises(UserError, match="the message: 512 tokens with the template; expected fewer than 512"):
        session.ask("x" * (512 - empty))
    assert len(session.exchanges) == 1


def test_the_tokens_shown_are_those_of_prompt_and_answer(model: LoadedModel) -> None:
    exchange = ChatSession(model, SETTINGS).ask("你")
    shown = exchange.tokens
    prompt = exchange.prompt.prompt_ids()
    assert shown.input_ids[: len(prompt)].tolist() == prompt
    answer = bytes(shown.input_ids[len(prompt) :].tolist())
    assert len(answer) == 8
    assert answer.decode("utf-8", "replace") == exchange.answer.text
    assert IM_END in prompt


@pytest.mark.parametrize("message", ["", "  \n"])
def test_empty_message_is_refused(model: LoadedModel, message: str) -> None:
    with pytest.raises(UserError, match="the message is empty; expected text"):
        ChatSession(model, SETTINGS).ask(message)
