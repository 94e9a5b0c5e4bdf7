"""Preference pairs: a prompt with two answers, of which one was preferred. What both answers share is the prompt.

An answer that was rated on its own is a pair without the other answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.records.field_values import is_given
from data_modules.records.known_fields import is_boolean
from data_modules.records.messages import keys_of_messages, named_turns
from data_modules.wording import kind_of

ANSWERS = ("chosen", "rejected")
"""The fields with the two answers."""

RATINGS = ("label", "kto_tag")
"""Fields that say whether a single answer is good: TRL's and LLaMA-Factory's."""

_OF_ANSWER = (Role.ASSISTANT, Role.TOOL)

_OR_DROP = "or set `--data.on_invalid drop`."

_PROMPT = (
    "Give the prompt in a field `prompt`, give both answers as whole conversations with the same beginning, " + _OR_DROP
)


def turns_of_pair(fields: Mapping[str, Any], prompt: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The conversation with the chosen answer, and that with the rejected one.

    An answer is a string, a message or a list of messages; lists may begin with the prompt. Without a prompt, it is
    what both lists begin with. The assistant's messages in a prompt are only context.

    Args:
        fields: The record's.
        prompt: The turns that the other fields give; may be empty.

    Raises:
        UserError: If an answer is empty, both are the same, or they answer different prompts.
    """
    answers = [_answer(fields, name) for name in ANSWERS]
    if not prompt:
        if any(isinstance(fields[name], str) for name in ANSWERS):
            raise UserError(f"fields 'chosen' and 'rejected' are strings, and there is no prompt. {_PROMPT}")
        prompt = _common(*answers)
    answers = [_without(prompt, answer) for answer in answers]
    for name, answer in zip(ANSWERS, answers, strict=True):
        _check(name, answer)
    if [turn.texts for turn in answers[0]] == [turn.texts for turn in answers[1]]:
        raise UserError(f"'chosen' and 'rejected' are the same answer. Remove the record, {_OR_DROP}")
    context = _as_context(prompt)
    return context + answers[0], context + answers[1]


def rating_of(fields: Mapping[str, Any]) -> bool | None:
    """Whether the answer of a record is rated as good; None if it is not rated.

    A `label` that is neither true nor false is something else, such as a class.

    Raises:
        UserError: If a `kto_tag` is neither true nor false, or contradicts the label.
    """
    given = {name: fields[name] for name in RATINGS if is_given(fields.get(name))}
    if "kto_tag" in given and not is_boolean(given["kto_tag"]):
        raise UserError(f"field 'kto_tag' is {kind_of(given['kto_tag'])}; expected true or false, {_OR_DROP}")
    found = {str(value).strip().casefold() == "true" for value in given.values() if is_boolean(value)}
    if len(found) > 1:
        raise UserError(f"fields 'label' and 'kto_tag' contradict each other. Remove one of them, {_OR_DROP}")
    return found.pop() if found else None


def turns_of_rated(turns: tuple[Message, ...], *, is_good: bool) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """A rated answer as a pair: the bare prompt takes the place of the other answer.

    Args:
        turns: The conversation. Only what follows the last user turn is rated; earlier answers are only context.
        is_good: Whether the answer is the chosen one.

    Returns:
        The conversation with the chosen answer, and that with the rejected one. If there is no answer, the second is
        empty.

    Raises:
        UserError: If the answer has a weight.
    """
    last = max((index for index, turn in enumerate(turns) if turn.role is Role.USER), default=-1)
    prompt, answer = tuple(_as_context(turns[: last + 1])), turns[last + 1 :]
    if not (prompt and answer):
        return turns, ()
    if any(turn.weight != 1 for turn in answer):
        raise UserError(f"a rated answer has a weight; expected one of the two. Remove the weight, {_OR_DROP}")
    return (prompt + answer, prompt) if is_good else (prompt, prompt + answer)


def _as_context(turns: Sequence[Message]) -> list[Message]:
    """Turns whose answers are not trained."""
    return [replace(turn, weight=0.0) if turn.role is Role.ASSISTANT else turn for turn in turns]


def check_repeats(turns: Sequence[Message], name: str, other: str, wholes: Sequence[Sequence[Message]]) -> None:
    """Refuse a second prompt of a record, unless it repeats something that is read.

    Args:
        turns: What the second field says.
        name: The field that the prompt was read from; empty if it was read from the answers.
        other: The second field.
        wholes: The prompt, and the conversations with either answer.

    Raises:
        UserError: If it says something else.
    """
    prompt, *answers = wholes
    for whole in (prompt or _common(*answers), *answers):
        if _parts(turns) in (_parts(whole), _parts([turn for turn in whole if turn.role is not Role.SYSTEM])):
            return
    if other == "input":
        reason = "is given without `instruction`, and the prompt does not have it"
    else:
        reason = f"gives another prompt than '{name}'"
    raise UserError(f"field '{other}' {reason}. Put the whole prompt into one field and remove the other, {_OR_DROP}")


def _parts(turns: Sequence[Message]) -> list[tuple[Role, list[str]]]:
    return [(turn.role, [part.strip() for part in turn.texts]) for turn in turns]


def messages_of(value: Any) -> list[Any]:
    """A message as a list of one; a list as it is; anything else as an empty list."""
    return [value] if isinstance(value, dict) else value if isinstance(value, list) else []


def _answer(fields: Mapping[str, Any], name: str) -> list[Message]:
    value = fields[name]
    if not is_given(value):
        raise UserError(f"field '{name}' is empty; expected an answer. Complete the record, {_OR_DROP}")
    if isinstance(value, str):
        return [Message(Role.ASSISTANT, value)]
    if not (items := messages_of(value)):
        raise UserError(f"field '{name}' is {kind_of(value)}; expected a string or a list of messages, {_OR_DROP}")
    return named_turns(items, name, *keys_of_messages(items, "role", "content"))


def _common(one: Sequence[Message], other: Sequence[Message]) -> Sequence[Message]:
    """The turns with which both conversations begin, up to the last that is not the assistant's."""
    both = zip(one, other, strict=False)
    equal = next((n for n, (a, b) in enumerate(both) if a != b), min(len(one), len(other)))
    while equal and one[equal - 1].role is Role.ASSISTANT:
        equal -= 1
    if not equal:
        raise UserError(
            f"'chosen' and 'rejected' begin with different messages, so they have no common prompt. {_PROMPT}"
        )
    return one[:equal]


def _without(prompt: Sequence[Message], answer: list[Message]) -> list[Message]:
    """An answer without the prompt that it repeats."""
    spoken = [turn for turn in prompt if turn.role is not Role.SYSTEM]
    for start in (list(prompt), spoken):
        if start and _contents(answer[: len(start)]) == _contents(start):
            return answer[len(start) :]
    return answer


def _contents(turns: Sequence[Message]) -> list[tuple[Role, str]]:
    return [(turn.role, turn.content.strip()) for turn in turns]


def _check(name: str, answer: Sequence[Message]) -> None:
    """Refuse an answer that is empty, weighted, or more than an answer to the prompt."""
    if not answer or not (answer[-1].content.strip() or answer[-1].tool_calls):
        raise UserError(f"field '{name}' has no answer; expected the assistant's. Complete the record, {_OR_DROP}")
    for turn in answer:
        if turn.role not in _OF_ANSWER:
            raise UserError(
                f"field '{name}' has a message of the {turn.role} that is not in the prompt: both answers must be to "
                f"the same prompt. Correct the record, {_OR_DROP}"
            )
        if turn.weight != 1:
            raise UserError(
                f"field '{name}' has a message of weight {turn.weight:g}; answers of a pair count fully. Remove the "
                f"weight, {_OR_DROP}"
            )
