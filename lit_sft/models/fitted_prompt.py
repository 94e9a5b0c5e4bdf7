"""The prompt for the next answer of a conversation, without the oldest exchanges if they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role

_NO_LIMIT = 2**31


def whole_prompt(encoder: Encoder, turns: Sequence[Message], origin: str = "the conversation") -> Example:
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


def fitted_prompt(
    encoder: Encoder, turns: Sequence[Message], *, context: int, max_new_tokens: int
) -> tuple[Example, int]:
    """Render a conversation, leaving out its oldest exchanges if there would be no room for the answer.

    Args:
        encoder: As for `whole_prompt`.
        turns: As for `whole_prompt`.
        context: Tokens that the model reads.
        max_new_tokens: The longest answer that is wanted. Up to half the context is kept free for it; a message that
            needs more gets a shorter answer.

    Returns:
        The prompt, and how many exchanges were left out.

    Raises:
        UserError: If the last message alone is too long, or the template rejects the conversation.
    """
    system = [turn for turn in turns[:1] if turn.role is Role.SYSTEM]
    said = turns[len(system) :]
    room = context - min(max_new_tokens, context // 2)
    num_exchanges = (len(said) - 1) // 2
    for num_left_out in range(num_exchanges + 1):
        prompt = whole_prompt(encoder, (*system, *said[2 * num_left_out :]))
        if len(prompt) <= room:
            return prompt, num_left_out
    # alone it may take up more: the answer will be shorter
    if len(prompt) >= context:
        raise UserError(
            f"the message: {len(prompt):,} tokens with the template; expected fewer than {context:,}, which this "
            "model reads. Shorten it."
        )
    return prompt, num_exchanges
