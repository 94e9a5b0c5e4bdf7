"""The prompt for the next answer of a conversation, without empty answers and the oldest exchanges that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.encoding.tokenizers import fewest_tokens
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.thinking import without_thinking
from data_modules.wording import counted

_NO_LIMIT = 2**31

_ORIGIN = "the conversation"


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that leaves room for the answer.

    Attributes:
        tokens: The prompt.
        turns: The same, message by message.
        num_left_out: The oldest exchanges that did not fit.
    """

    tokens: Example
    turns: tuple[Message, ...]
    num_left_out: int


def is_empty_answer(text: str) -> bool:
    """Whether an answer says nothing, thinking aside. No template can write it, so later prompts leave it out."""
    return not without_thinking(text).strip()


def turns_of(system: str, said: Iterable[tuple[str, str]], message: str) -> list[Message]:
    """The turns of a conversation. A message with an empty answer is joined with the next one by a blank line.

    Args:
        system: The system message; empty for none.
        said: Messages and their answers so far.
        message: The message to answer.
    """
    turns = [Message(Role.SYSTEM, system.strip())] if system.strip() else []
    unanswered = list[str]()
    for asked, answered in said:
        unanswered.append(asked)
        if not is_empty_answer(answered):
            turns += [Message(Role.USER, "\n\n".join(unanswered)), Message(Role.ASSISTANT, answered)]
            unanswered.clear()
    return [*turns, Message(Role.USER, "\n\n".join([*unanswered, message]))]


def least_length(encoder: Encoder, turns: Sequence[Message], limit: int, origin: str = _ORIGIN) -> int:
    """A lower bound of the tokens of a prompt, found without encoding it, which takes long for long texts.

    Args:
        encoder: As for `whole_prompt`.
        turns: As for `whole_prompt`.
        limit: What matters is whether the bound is above it.
        origin: What errors call it.

    Raises:
        UserError: If the template rejects it.
    """
    least = fewest_tokens(encoder.tokenizer, "".join(turn.content for turn in turns))
    if least <= limit:
        return least
    # templates may leave out white space
    rendered = encoder.template.render(Conversation(tuple(turns), origin))
    return fewest_tokens(encoder.tokenizer, "".join(segment.text for segment in rendered))


def whole_prompt(encoder: Encoder, turns: Sequence[Message], origin: str = _ORIGIN) -> Example:
    """Render a conversation, whatever its length.

    Args:
        encoder: The model's. Its own limit does not matter.
        turns: A system message or none, then messages and answers in turn; the last is the message to answer.
        origin: What errors call it.

    Raises:
        UserError: If the template rejects it, for example because it has no place for a system message.
    """
    unlimited = replace(encoder, max_length=_NO_LIMIT, over_long="error")
    (prompt,) = unlimited.encode(Conversation(tuple(turns), origin))
    return prompt


def fitted_prompt(encoder: Encoder, turns: Sequence[Message], *, context: int, max_new_tokens: int) -> FittedPrompt:
    """Render a conversation, leaving out its oldest exchanges if there would be no room for the answer.

    Args:
        encoder: As for `whole_prompt`.
        turns: As for `whole_prompt`.
        context: Tokens that the model reads.
        max_new_tokens: The longest answer that is wanted. Up to half the context is kept free for it; a message that
            needs more gets a shorter answer.

    Raises:
        UserError: If the last message alone is too long, or the template rejects the conversation.
    """
    system = [turn for turn in turns[:1] if turn.role is Role.SYSTEM]
    said = turns[len(system) :]
    room = context - min(max_new_tokens, context // 2)
    num_exchanges = (len(said) - 1) // 2
    for num_left_out in range(num_exchanges):
        kept = (*system, *said[2 * num_left_out :])
        if least_length(encoder, kept, room) > room:
            continue
        prompt = whole_prompt(encoder, kept)
        if len(prompt) <= room:
            return FittedPrompt(prompt, kept, num_left_out)
    # alone it may take up more: the answer will be shorter
    last = (*system, said[-1])
    return FittedPrompt(_alone(encoder, last, context), last, num_exchanges)


def about_left_out(num_exchanges: int) -> str:
    """What a reader should know about the exchanges that were left out; empty if there are none."""
    if not num_exchanges:
        return ""
    what = "exchange" if num_exchanges == 1 else counted(num_exchanges, "exchange")
    return f"the oldest {what} did not fit into the context"


def _alone(encoder: Encoder, turns: Sequence[Message], context: int) -> Example:
    length = least_length(encoder, turns, context)
    how = "at least "
    if length <= context:
        prompt = whole_prompt(encoder, turns)
        if len(prompt) < context:
            return prompt
        length, how = len(prompt), ""
    raise UserError(
        f"the message: {how}{length:,} tokens with the template; expected fewer than {context:,}, which this model "
        "reads. Shorten it."
    )
