"""The token ids that a model is given: those it was trained on, and room for the answer."""

from __future__ import annotations

from collections.abc import Sequence

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.tokenizers import fewest_tokens
from data_modules.errors import UserError
from data_modules.records.conversation import Message
from lit_sft.models.fitted_prompt import least_length, whole_prompt
from lit_sft.models.generation import num_known
from lit_sft.models.loaded import LoadedModel
from lit_sft.serve.errors import ORIGIN, ApiError, invalid, reason_for_client


def ids_of_chat(encoder: Encoder, turns: tuple[Message, ...], context: int) -> list[int]:
    """The prompt for the next answer, rendered by the template that the model was trained with.

    Args:
        encoder: Of the model. Its own limit does not matter.
        turns: The conversation.
        context: Tokens that the model reads. What is certainly longer is not encoded.

    Raises:
        ApiError: If the template or the tokenizer refuses it, or it is far too long.
    """
    try:
        _check_length(least_length(encoder, turns, context, ORIGIN), context, "messages")
        prompt = whole_prompt(encoder, turns, ORIGIN)
    except UserError as error:
        raise invalid("messages", f"Invalid 'messages': {reason_for_client(error)}", "invalid_value") from None
    return list(map(int, prompt.prompt_ids()))


def ids_of_text(encoder: Encoder, model: LoadedModel, prompt: str | Sequence[int], place: str) -> list[int]:
    """The ids of a text as any client encodes it: markers in it become tokens. Ids are taken as they are.

    Args:
        encoder: Of the model.
        model: Knows which ids there are.
        prompt: A text, or ids.
        place: The field of the request.

    Raises:
        ApiError: If there is no such id, nothing to continue, or far too much.
    """
    if not isinstance(prompt, str):
        num_ids = num_known(model.tokenizer)
        if wrong := [each for each in prompt if not 0 <= each < num_ids]:
            raise invalid(
                place, f"Invalid '{place}': no token with id {wrong[0]}; this model has {num_ids:,}.", "invalid_value"
            )
        return list(prompt)
    _check_length(fewest_tokens(encoder.tokenizer, prompt), model.context_length, "prompt")
    try:
        ids = encoder.ids_of_document(prompt)
    except UserError as error:
        raise invalid(place, f"Invalid '{place}': {reason_for_client(error)}", "invalid_value") from None
    if not ids:
        raise invalid(place, f"Invalid '{place}': empty string. Expected text to continue.", "empty_string")
    return ids


def _check_length(least: int, context: int, param: str) -> None:
    """Refuse a prompt that cannot fit before it is encoded: others would have to wait for that.

    Raises:
        ApiError: If it has more tokens than the model reads.
    """
    if least > context:
        raise _too_long(context, f"your {param} {_has(param)} at least {least:,} tokens", param, "")


def room_for(model: LoadedModel, prompt: Sequence[int], wanted: int | None, usual: int, param: str) -> int:
    """The most tokens of an answer.

    Args:
        model: Answers.
        prompt: Ids.
        wanted: As requested; None: the usual limit, or less if there is no room for it.
        usual: The usual limit.
        param: The field that holds the prompt.

    Raises:
        ApiError: If prompt and answer do not fit into the model's context.
    """
    context = model.context_length
    room = context - len(prompt)
    if (wanted or 0) <= room and (room > 0 or wanted == 0):
        return min(usual, room) if wanted is None else wanted
    requested = (
        f"you requested {len(prompt) + wanted:,} tokens ({len(prompt):,} in the {param}, {wanted:,} in the completion)"
        if wanted
        else f"your {param} {_has(param)} {len(prompt):,} tokens, which leaves no room for an answer"
    )
    raise _too_long(context, requested, param, " or the completion" if wanted else "")


def _has(param: str) -> str:
    return "have" if param == "messages" else "has"


def _too_long(context: int, requested: str, param: str, other: str) -> ApiError:
    return ApiError(
        400,
        f"This model's maximum context length is {context:,} tokens. However, {requested}. Please shorten the "
        f"{param}{other}.",
        param,
        "context_length_exceeded",
    )
