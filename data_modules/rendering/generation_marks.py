"""Which answers a chat template marks with `{% generation %}`, for trainers to supervise."""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from data_modules.records.conversation import Conversation, Role
from data_modules.rendering.chat_shape import Slot
from data_modules.rendering.emission import MARK, Unclear

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def has_marks(source: str) -> bool:
    """Whether a chat template has marks."""
    return _GENERATION.search(source) is not None


def marked_turns(
    conversation: Conversation,
    messages: list[dict[str, Any]],
    slots: tuple[Slot, ...],
    tokenizer: PreTrainedTokenizerBase,
    source: str,
) -> frozenset[int]:
    """The turns of the answers that a template marks.

    Args:
        conversation: The roles of the messages.
        messages: The messages, with `emission.mark` for contents.
        slots: What each of these stands for.
        tokenizer: Its special tokens are used by the template.
        source: The Jinja program.

    Raises:
        Unclear: If it marks text that the model does not say.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        [messages], chat_template=source, return_assistant_tokens_mask=True, **tokenizer.special_tokens_map
    )
    turns = set()
    for match in MARK.finditer(texts[0]):
        if any(start <= match.start() < stop for start, stop in spans[0]):
            turn = slots[int(match[1])][0]
            if conversation.turns[turn].role is not Role.ASSISTANT:
                raise Unclear("its {% generation %} marks include a message that the model does not write")
            turns.add(turn)
    return frozenset(turns)
